"""An event-driven webhook listener for Pockyt's cancellation statuses."""
