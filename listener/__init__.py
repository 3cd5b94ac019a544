"""An event-driven webhook listener for Pockyt's cancellation statuses."""

# Here and nowhere else; what is built reads it from this file.
__version__ = "0.2.0"
