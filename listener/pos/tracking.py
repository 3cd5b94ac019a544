"""What a POS client decides: which event is new, and when events are missing on a connection.

Nothing here waits or does I/O; ``pos.follower`` and ``pos.link`` do, and ask here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from listener.pos.codes import CloseCode, Duty
from listener.pos.ended import Ended
from listener.pos.events import (
    After,
    Event,
    PageEvent,
    Position,
    ResyncMembers,
    Start,
    StreamStart,
)
from listener.pos.frames import STREAMS_MAX, Connect, Ping, Ready

VERSIONS_MAX: Final = 100_000


class Versions:
    """The newest state version shown of each transaction; the oldest ones are forgotten.

    A version counts in its ledger only. In another, a transaction may be one of another stream,
    whose own resync has not come yet.
    """

    def __init__(self, *, limit: int = VERSIONS_MAX) -> None:
        self._limit = limit
        self._held: dict[tuple[str, str], tuple[int, str, str]] = {}

    def is_new(self, event: Event, *, stream: str, epoch: str) -> bool:
        """Return whether an event is newer than what was shown; if so, remember its version."""
        key = (event.data.merchant_no, event.data.transaction_no)
        held = self._held.get(key)
        if held is not None and held[2] == epoch and event.data.state_version <= held[0]:
            return False
        # Removed first, so that the dict is in the order of the last use.
        self._held.pop(key, None)
        self._held[key] = (event.data.state_version, stream, epoch)
        if len(self._held) > self._limit:
            del self._held[next(iter(self._held))]
        return True

    def forget(self, stream: str) -> None:
        """Forget the versions of a stream's transactions."""
        self._held = {key: held for key, held in self._held.items() if held[1] != stream}


class BrokenError(Exception):
    """Events are missing on this connection: reconnect from our own position."""


@dataclass(slots=True, kw_only=True)
class Tracker:
    """How far each stream has come here.

    ``received`` is what arrived, ``handled`` what the program has finished. After a reconnect,
    events go on after ``received``, and ``handled`` is acknowledged. ``start`` is where a stream
    begins if nothing of it was received yet. ``lost`` are the streams whose position the listener
    does not resume, until their resync comes.
    """

    streams: Sequence[str] | None
    start: Start = "acked"
    received: dict[str, Position] = field(default_factory=dict)
    handled: dict[str, Position] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    # Where the snapshots lead to that the program has not read to their end.
    _unread: dict[str, Position] = field(default_factory=dict)
    _named: list[str] = field(default_factory=list)
    # Streams that the key has gained since following began.
    _new: set[str] = field(default_factory=set)

    def load(self, positions: Mapping[str, Position]) -> None:
        """Begin from saved positions."""
        wanted = positions if self.streams is None else self.streams
        kept = {stream: positions[stream] for stream in wanted if stream in positions}
        self.received.update(kept)
        self.handled.update(kept)

    @property
    def names(self) -> list[str]:
        """The streams that are followed, as far as known: ``ready`` shows the key's scope."""
        return list(self.streams) if self.streams is not None else list(self._named)

    @property
    def follows_all(self) -> bool:
        """Whether all streams of the key are followed: stores come and go meanwhile."""
        return self.streams is None

    def name(self, streams: Sequence[str]) -> None:
        """Follow the streams that the listener has named: those of the key."""
        if self._named:
            self._new.update(set(streams) - set(self._named))
        self._narrow(streams)

    def _narrow(self, streams: Sequence[str]) -> None:
        """Follow just these of the key's streams: nothing more comes of a store that is gone."""
        self._named = list(streams)
        self.lost.intersection_update(streams)
        for gone in self._unread.keys() - set(streams):
            # If the store comes back, what its snapshot would have shown must still be shown.
            del self._unread[gone], self.received[gone]
            if gone in self.handled:
                self.received[gone] = self.handled[gone]

    def without_lost_store(self, ended: Ended) -> Ended:
        """Go on with the others if one of all of a key's streams is refused."""
        if self.follows_all and ended.code == CloseCode.STREAM_NOT_ALLOWED and len(self._named) > 1:
            return replace(ended, duty=Duty.BACK_OFF)
        return ended

    def after(self, stream: str) -> After:
        """Return where a stream goes on, or begins."""
        return self.received.get(stream, "earliest" if stream in self._new else self.start)

    def connect(self, number: int) -> Connect:
        """Build the connect frame: from our own positions, else from the acknowledged ones."""
        # Of more streams than may be named, the others go on after their last ack.
        names = self.names[:STREAMS_MAX] if self.follows_all else self.names
        starts = [StreamStart(stream=name, after=self.after(name)) for name in names]
        others = True if self.follows_all else None
        return Connect(id=number, streams=starts or None, others=others)

    def ready(self, ready: Ready) -> None:
        """Begin each stream where the listener says.

        Raises:
            BrokenError: It begins past our own position, in another ledger, or elsewhere than at
                ``start`` because the key's streams were not known; or our own is past its head.
        """
        self.lost = {stream.stream for stream in ready.streams if not stream.recovered}
        if self.streams is None:
            was_asked = bool(self._named) or self.start == "acked"
            self._narrow([stream.stream for stream in ready.streams])
            if not was_asked and self._named:
                raise BrokenError(f"now that the streams are known, they begin at {self.start}")
        for stream in ready.streams:
            if stream.stream in self.lost:
                # Its resync says where events go on.
                continue
            ours = self.received.get(stream.stream)
            if ours is None:
                self.begin(stream.stream, Position(epoch=stream.epoch, offset=stream.after))
            elif ours.epoch != stream.epoch or stream.after > ours.offset:
                raise BrokenError(f"{stream.stream} begins past what we have")
            elif ours.offset > max(stream.head, stream.after):
                # The listener does not know of it, as after a crash that took its last commits.
                # What comes next would be taken for old; asked for by name, it gets a resync.
                raise BrokenError(f"{stream.stream} ends before what we have")

    def begin(self, stream: str, position: Position) -> None:
        """Continue a stream from a position that the listener gave."""
        self.received[stream] = position
        # It was of the position before, which may be of another ledger.
        self.heads.pop(stream, None)
        if self.streams is None and stream not in self._named:
            self._named.append(stream)

    def resync(self, resync: ResyncMembers) -> Position:
        """Forget a stream's position; return the one that its snapshot leads to."""
        position = Position(epoch=resync.epoch, offset=resync.head)
        self.begin(resync.stream, position)
        self.lost.discard(resync.stream)
        self._unread[resync.stream] = position
        return position

    def found(self, stream: str, position: Position) -> None:
        """Note that the snapshot that leads to a position is read, if it is the stream's newest."""
        if self._unread.get(stream) is position:
            del self._unread[stream]

    def _is_gone(self, stream: str) -> bool:
        """Return whether a stream is none of the key's any more, whose all are followed."""
        return self.streams is None and stream not in self._named

    def is_unread(self, stream: str) -> bool:
        """Return whether a snapshot of a stream is to be read."""
        return stream in self._unread

    @property
    def is_complete(self) -> bool:
        """Whether no snapshot is missing from what the program has."""
        return not self.lost and not self._unread

    def take(self, event: PageEvent) -> Position | None:
        """Accept the next event of a stream; return None for one that came before.

        Raises:
            BrokenError: Events before it are missing.
        """
        ours = self.received.get(event.stream)
        if ours is None:
            raise BrokenError(f"{event.stream} is not followed")
        if event.offset <= ours.offset:
            return None
        if event.offset > ours.offset + 1:
            raise BrokenError(f"{event.stream} has a hole after {ours.offset}")
        position = Position(epoch=ours.epoch, offset=event.offset)
        self.received[event.stream] = position
        return position

    def ping(self, ping: Ping) -> None:
        """Remember how far the listener says that the streams have come."""
        self.heads = dict(ping.heads)

    @property
    def is_behind(self) -> bool:
        """Whether the listener announced events that have not arrived."""
        return any(
            head > self.received[stream].offset
            for stream, head in self.heads.items()
            if stream in self.received
        )

    def ackable(self, stream: str) -> Position | None:
        """Return the offset to acknowledge: handled, and in the present ledger.

        None from the moment at which the position is lost until the snapshot was read: what was
        handled before is of the old ledger, and what is handled meanwhile is not all there is.
        """
        if stream in self.lost or stream in self._unread or self._is_gone(stream):
            return None
        handled, received = self.handled.get(stream), self.received.get(stream)
        if handled is None or received is None or handled.epoch != received.epoch:
            return None
        # Only what was handled before a resync can be past what was received.
        return handled if handled.offset <= received.offset else None
