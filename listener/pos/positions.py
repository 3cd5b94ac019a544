"""Where a POS client stores how far it has come, so that it resumes there after a restart."""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError

from listener.errors import UnreadableError
from listener.pos.events import Position

_LOG: Final = logging.getLogger(__name__)
_MODE: Final = 0o600


class PositionStore(Protocol):
    """Stores a position for each stream; called after each event that was handled."""

    async def load(self) -> Mapping[str, Position]:
        """Return the position of each stream that was saved."""

    async def save(self, stream: str, position: Position) -> None:
        """Store the position of a stream; it is stored once this returns."""


class MemoryPositions:
    """Holds positions for as long as the program runs."""

    def __init__(self, positions: Mapping[str, Position] | None = None) -> None:
        self._positions = dict(positions or {})

    async def load(self) -> Mapping[str, Position]:
        """Return the position of each stream that was saved."""
        return dict(self._positions)

    async def save(self, stream: str, position: Position) -> None:
        """Store the position of a stream."""
        self._positions[stream] = position


class FilePositions:
    """Stores positions in a JSON file of its own, replaced as a whole: never half written.

    A disk that is full or gone stops no till: a position that cannot be written is logged, held in
    memory, and written with the next one. After a restart the listener then repeats some events.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._positions: dict[str, Position] = {}
        self._adapter = TypeAdapter(dict[str, Position])
        self._is_failing = False
        self._writing = Lock()

    async def load(self) -> Mapping[str, Position]:
        """Return the position of each stream that was saved; none if there is no file yet.

        Raises:
            UnreadableError: The file cannot be read, or is not one of positions.
            ValueError: The folder of the file does not exist.
        """
        try:
            text = await asyncio.to_thread(self._path.read_bytes)
            self._positions = self._adapter.validate_json(text)
        except FileNotFoundError:
            if not self._path.parent.is_dir():
                raise ValueError(
                    f"{self._path.parent}, the folder for the positions, does not exist"
                ) from None
            return {}
        except OSError as error:
            raise UnreadableError(f"{self._path.name} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise UnreadableError(f"{self._path.name} is not a file of positions") from error
        return dict(self._positions)

    async def save(self, stream: str, position: Position) -> None:
        """Store the position of a stream; on disk once this returns, unless the disk fails."""
        self._positions[stream] = position
        try:
            await asyncio.to_thread(self._write)
        except OSError as error:
            if not self._is_failing:
                _LOG.warning("positions_not_saved file=%s why=%s", self._path, error.strerror)
            self._is_failing = True
        else:
            self._is_failing = False

    def _write(self) -> None:
        # A save whose caller was cancelled may still be writing.
        with self._writing:
            self._replace(self._adapter.dump_json(dict(self._positions)))

    def _replace(self, text: bytes) -> None:
        fresh = self._path.with_name(f".{self._path.name}.new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            # Without it, a power cut can leave an empty file under the new name.
            os.fsync(file.fileno())
        fresh.replace(self._path)
        # Windows cannot open a directory; elsewhere a power cut could bring the old file back.
        if os.name == "posix":
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
