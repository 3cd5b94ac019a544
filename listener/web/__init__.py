"""The service: the notify URL, the POS stream, the ledger query and the pages."""
