"""What requests and answers look like: bodies, parameters, models."""
