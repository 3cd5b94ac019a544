"""The tills: they follow their streams by websocket or long-poll.

- ``upgrade``: may this request become a websocket?
- ``socket``: one websocket, from hello to its close.
- ``resume``: where a till begins in a stream, or that its position is lost.
- ``acks``: what a websocket acknowledges is checked and stored.
- ``connection``: how frames are written to a till, and how a slow one is noticed.
- ``sessions``: all websockets: heartbeat, silence, revoked keys, and the farewell before a restart.
- ``pulse``: whether this process was just paused.
- ``polling``: the same without a websocket.
"""
