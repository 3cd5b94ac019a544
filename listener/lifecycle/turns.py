"""Turns: one task at a time works on a transaction, on whichever node."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final, Protocol

from listener.errors import LedgerUnavailableError

# How soon a turn that another node holds is tried again.
RETRY_SECONDS: Final = 0.1
NAME_CHARS_MAX: Final = 200


class Leases(Protocol):
    """What turns need of the ledger: one node at a time holds a turn."""

    async def claim_turn(self, name: str) -> bool: ...
    async def keep_turn(self, name: str, *, seconds: float) -> bool: ...
    async def release_turn(self, name: str) -> None: ...


class _Held:
    """A turn that is held; a task that was started meanwhile may outlive it."""

    __slots__ = ("is_over", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_over = False


# The turns that the running task holds.
_HELD: Final[ContextVar[tuple[_Held, ...]]] = ContextVar("held", default=())


async def keep_turns(ledger: Leases, *, seconds: float) -> None:
    """Extend all turns of this task from now on, by the longest time the next call may take.

    Raises:
        LedgerUnavailableError: This node was paused, and another one has the turn now.
    """
    for held in _HELD.get():
        if not held.is_over and not await ledger.keep_turn(held.name, seconds=seconds):
            raise LedgerUnavailableError("another node works on this; look again in a moment")


class Turns:
    """A lock for each key, for as long as somebody holds it or waits for it.

    Args:
        ledger: Shares the locks with the other nodes; None where there are no others.
        kind: What is locked, so that two kinds of turns never collide.
    """

    def __init__(self, ledger: Leases | None = None, *, kind: str = "turn") -> None:
        self._ledger = ledger
        self._kind = kind
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def of(self, *key: str) -> AsyncIterator[None]:
        """Wait for the turn, and hold it for as long as the context lasts.

        Raises:
            LedgerUnavailableError: The ledger cannot be used now.
        """
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        name = self._name(key)
        try:
            async with lock:
                await self._claim(name)
                held = _Held(name)
                token = _HELD.set((*_HELD.get(), held))
                try:
                    yield
                finally:
                    held.is_over = True
                    _HELD.reset(token)
                    if self._ledger is not None:
                        await self._ledger.release_turn(name)
        finally:
            lock, waiting = self._locks.pop(key)
            if waiting > 1:
                self._locks[key] = (lock, waiting - 1)

    async def _claim(self, name: str) -> None:
        """Wait until no other node holds the turn."""
        if self._ledger is None:
            return
        while not await self._ledger.claim_turn(name):  # noqa: ASYNC110 - another process has it
            await asyncio.sleep(RETRY_SECONDS)

    def _name(self, key: tuple[str, ...]) -> str:
        name = "/".join((self._kind, *key))
        if len(name) <= NAME_CHARS_MAX:
            return name
        return f"{self._kind}#{hashlib.sha256(name.encode(errors='replace')).hexdigest()}"
