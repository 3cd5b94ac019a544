"""The form of requests and answers: bodies, parameters, models."""
