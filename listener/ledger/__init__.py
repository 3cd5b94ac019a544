"""The ledger: its nouns, their arithmetic, and the protocol that every back-end implements."""
