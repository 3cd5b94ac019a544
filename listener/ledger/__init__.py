"""The ledger: its nouns, their arithmetic, and the promise that every back-end keeps."""
