"""The tills: they follow their streams by websocket or long-poll."""
