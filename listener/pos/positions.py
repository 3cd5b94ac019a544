"""Where a POS client keeps how far it has come, so that it resumes there after a restart."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError

from listener.errors import UnreadableError
from listener.pos.frames import Position

_MODE: Final = 0o600


class PositionStore(Protocol):
    """Keeps a position for each stream; written after each event that was handled."""

    async def load(self) -> Mapping[str, Position]:
        """Return the position of each stream that was saved."""

    async def save(self, stream: str, position: Position) -> None:
        """Keep the position of a stream; kept once this returns."""


class MemoryPositions:
    """Keeps positions for as long as the program runs."""

    def __init__(self, positions: Mapping[str, Position] | None = None) -> None:
        self._positions = dict(positions or {})

    async def load(self) -> Mapping[str, Position]:
        """Return the position of each stream that was saved."""
        return dict(self._positions)

    async def save(self, stream: str, position: Position) -> None:
        """Keep the position of a stream."""
        self._positions[stream] = position


class FilePositions:
    """Keeps positions in a JSON file of its own, replaced as a whole: never half written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._positions: dict[str, Position] = {}
        self._adapter = TypeAdapter(dict[str, Position])

    async def load(self) -> Mapping[str, Position]:
        """Return the position of each stream that was saved; none where there is no file yet.

        Raises:
            UnreadableError: The file is not one of positions.
        """
        try:
            text = await asyncio.to_thread(self._path.read_bytes)
        except FileNotFoundError:
            return {}
        try:
            self._positions = self._adapter.validate_json(text)
        except ValidationError as error:
            raise UnreadableError(f"{self._path.name} is not a file of positions") from error
        return dict(self._positions)

    async def save(self, stream: str, position: Position) -> None:
        """Keep the position of a stream; on disk once this returns."""
        self._positions[stream] = position
        await asyncio.to_thread(self._write, self._adapter.dump_json(self._positions))

    def _write(self, text: bytes) -> None:
        fresh = self._path.with_name(f".{self._path.name}.new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            # Without it, a power cut can leave the new name on an empty file.
            os.fsync(file.fileno())
        fresh.replace(self._path)
        # Windows opens no directory; elsewhere a power cut could bring the old file back.
        if os.name == "posix":
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
