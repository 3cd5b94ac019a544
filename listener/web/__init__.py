"""The service: the notify URL, the POS stream, the ledger queries and the pages."""
