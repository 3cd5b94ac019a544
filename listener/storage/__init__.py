"""Back-ends of the ledger."""
