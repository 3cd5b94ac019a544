"""The POS side of the wire: the frames of ``pos.v1``, and a client that speaks it."""
