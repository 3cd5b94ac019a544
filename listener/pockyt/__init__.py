"""Pockyt's wire format: its signature, its notifications, its calls."""
