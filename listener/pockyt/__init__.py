"""Pockyt's side of the wire: its signature, its notification, its calls."""
