"""Store the acks of one POS connection: the newest valid one of each stream."""

import asyncio
from typing import Final

from listener.errors import LedgerUnavailableError
from listener.keys import Role
from listener.ledger.promise import Ledger
from listener.pos.frames import Ack
from listener.web.till.sessions import Session

# How long an ack that could not be stored waits before it is tried again.
RETRY_SECONDS: Final = 1.0


class AckError(Exception):
    """An ack that means nothing here; ``code`` is that of the error frame."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Acks:
    """The acks of one connection, from before it learns its positions to its end."""

    def __init__(self, session: Session, *, ledger: Ledger) -> None:
        self._session = session
        self._ledger = ledger
        # The epoch of the positions that the till gets.
        self._epoch = ledger.epoch
        # Where each stream was acknowledged up to here, or begins.
        self._acked: dict[str, int] = {}
        # What is to be stored.
        self._newest: dict[str, int] = {}
        self._storing: asyncio.Task[None] | None = None
        self._is_over = False

    def begin(self, stream: str, *, after: int) -> None:
        """Begin a stream where the connection begins to follow it."""
        self._acked[stream] = after

    def take(self, ack: Ack) -> bool:
        """Queue an ack; return whether it acknowledges more than was acknowledged here.

        Raises:
            AckError: It is about something that this connection was not sent.
        """
        if self._session.connection.is_closing:
            # The till comes back, and then acknowledges what still counts.
            return False
        followed = self._session.subscriptions.get(ack.stream)
        if self._session.key.role is not Role.POS:
            raise AckError("wrong-role", "only a pos key acknowledges")
        if followed is None:
            raise AckError("unknown-stream", "this connection does not follow it")
        if ack.epoch not in (None, self._epoch):
            raise AckError("epoch-changed", "that offset is of another ledger")
        if ack.offset > followed.head:
            raise AckError("ack-ahead", "that offset is beyond the head")
        # Acks that arrive while one is being stored are stored together.
        self._newest[ack.stream] = max(ack.offset, self._newest.get(ack.stream, 0))
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store())
        is_more = followed.offset >= ack.offset > self._acked[ack.stream]
        if is_more:
            self._acked[ack.stream] = ack.offset
        return is_more

    async def end(self) -> None:
        """Store the queued acks; the till repeats what cannot be stored now."""
        self._is_over = True
        if self._storing is not None:
            await self._storing

    async def _store(self) -> None:
        terminal = self._session.key.subscriber
        while self._newest:
            name, offset = self._newest.popitem()
            try:
                await self._ledger.ack(
                    terminal=terminal, stream=name, offset=offset, epoch=self._epoch
                )
            except LedgerUnavailableError:
                if self._is_over or self._session.connection.is_closing:
                    # The client acknowledges again when it comes back: acks are cumulative.
                    return
                # Closing would only make the till come back with the same ack.
                self._newest[name] = max(offset, self._newest.get(name, 0))
                await asyncio.sleep(RETRY_SECONDS)
