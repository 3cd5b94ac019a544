"""The ledger on PostgreSQL: any number of equal listeners on one database."""
