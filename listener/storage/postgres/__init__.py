"""The ledger on PostgreSQL: any number of listeners on one database, all equal."""
