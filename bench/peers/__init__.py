"""Other ways to build it, as their users would: what the listener is measured against."""
