"""What every test needs; fixtures for one kind of test live beside it."""
