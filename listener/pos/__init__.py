"""The POS side of the wire: the frames and events of ``pos.v1``, and a client that speaks it."""
