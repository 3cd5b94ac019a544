"""Write to the websocket of a till directly: limited, measured, and always closed at the end."""

import asyncio
import fcntl
import struct
import termios
import time
from contextlib import suppress
from typing import Final

from listener.pos.codes import CloseCode
from listener.pos.wire import ws_close

# A socket that buffers this much accepts no more until its client has read.
BUFFER_BYTES_MAX: Final = 256 * 1024


class TillConnection:
    """Sends frames to one till; the hub writes its events directly to it.

    ``id`` names it in the log, ``code`` is the close code that was sent here, and ``since`` is when
    it came, by ``time.monotonic()``.
    """

    __slots__ = ("_close_seconds", "_loop", "_taken", "_taken_at", "_transport", "_written",
                 "code", "id", "since")  # fmt: skip

    def __init__(
        self, transport: asyncio.WriteTransport, *, connection_id: str, close_seconds: float
    ) -> None:
        self.id = connection_id
        self.since = time.monotonic()
        self.code: CloseCode | None = None
        # Remembered from the start: the request forgets it when the connection is lost.
        self._transport = transport
        self._close_seconds = close_seconds
        self._loop = asyncio.get_running_loop()
        self._written = 0
        # How much its client has taken; None while nothing waits for it.
        self._taken: int | None = None
        self._taken_at = self._loop.time()

    @property
    def is_closing(self) -> bool:
        """Whether the listener has closed it."""
        return self.code is not None

    def offer(self, frames: bytes) -> bool:
        """Write events if there is room; return False if there is none.

        Called for every till and every commit, so it tests and writes in one call.
        """
        transport = self._transport
        if transport.get_write_buffer_size() >= BUFFER_BYTES_MAX:
            return False
        if self.code is None and not transport.is_closing():
            self._written += len(frames)
            transport.write(frames)
        return True

    def write(self, frames: bytes) -> None:
        """Write whole frames past aiohttp, which would build each again for every till."""
        if self.code is None and not self._transport.is_closing():
            self._written += len(frames)
            self._transport.write(frames)

    @property
    def buffered(self) -> int:
        """How many bytes its client has yet to read."""
        return self._transport.get_write_buffer_size()

    def has_room(self) -> bool:
        """Return whether the socket's own buffer is short enough for more."""
        return self.buffered < BUFFER_BYTES_MAX

    def count_written(self, size: int) -> None:
        """Count bytes that aiohttp writes."""
        self._written += size

    def is_stalled(self, now: float, *, limit_seconds: float) -> bool:
        """Return whether the client has taken nothing for too long, though more waits for it.

        The system holds megabytes for a slow client, and takes no more until a good part of them is
        gone, so it is asked how much of them the client has yet to take.
        """
        if not self.buffered:
            self._taken, self._taken_at = None, now
            return False
        taken = self._written - self.buffered - _held(self._transport)
        if self._taken is None or taken > self._taken:
            self._taken, self._taken_at = taken, now
        return now - self._taken_at > limit_seconds

    def close(self, code: CloseCode, why: str = "") -> None:
        """Send a close frame with a code and its reason; cut off a client that does not answer.

        This does not wait: a stalled socket never accepts the frame.
        """
        if self.code is None:
            self.write(ws_close(code, why or code.meaning))
            self.code = code
            self._loop.call_later(self._close_seconds, self._cut_off)

    def fail(self) -> None:
        """Close after a fault of the listener."""
        self.close(CloseCode.SERVER_ERROR)

    def end(self) -> None:
        """Close the socket; what it still buffers is sent, within a short time."""
        self._transport.close()
        if self.buffered:
            self._loop.call_later(self._close_seconds, self._cut_off)

    def _cut_off(self) -> None:
        """Abort, unless the socket has been closed meanwhile."""
        # If a closed transport has sent the last of its buffer, asyncio would log that there is no
        # loop any more.
        if self.buffered or not self._transport.is_closing():
            self._transport.abort()


def _held(transport: asyncio.WriteTransport) -> int:
    """Return how many bytes the system holds that the other side has not acknowledged."""
    line = transport.get_extra_info("socket")
    answer = bytes(struct.calcsize("i"))
    if line is not None:
        # Not every system can be asked; then only what the system takes is progress.
        with suppress(OSError, ValueError):
            answer = fcntl.ioctl(line.fileno(), termios.TIOCOUTQ, answer)
    return int(struct.unpack("i", answer)[0])
