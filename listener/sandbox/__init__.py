"""A stand-in for Pockyt and the wallet server, to develop and test against."""
