"""A disk whose power may be cut: what was synced is there after it, of the rest nobody knows."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tests.fault.tape import Create, Remove, Step, Sync, Truncate, Write

SECTOR_BYTES: Final = 512
# What is left of that which was not synced: nothing, what came first (the last of it torn), or
# any part of it in any order, down to single sectors.
Luck = Literal["nothing", "the first", "any"]
LUCK: Final[tuple[Luck, ...]] = ("nothing", "the first", "any")


@dataclass(slots=True)
class _Content:
    """What is in a file: on the disk, and on the way there, in order."""

    synced: bytearray = field(default_factory=bytearray)
    waiting: list[Write | Truncate] = field(default_factory=list)


class Disk:
    """Takes the steps of a service, one after the other."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        # By name: as the system shows it now, and as the disk has it.
        self._shown = {name: _Content(bytearray(data)) for name, data in files.items()}
        self._kept = dict(self._shown)
        self._renamed: list[Create | Remove] = []
        self._made: list[_Content] = []

    def take(self, step: Step) -> None:
        """Apply a step."""
        if isinstance(step, Create) and step.file not in self._shown:
            self._shown[step.file] = _Content()
            self._made.append(self._shown[step.file])
            self._renamed.append(step)
        elif isinstance(step, Remove):
            del self._shown[step.file]
            self._renamed.append(step)
        elif isinstance(step, Write | Truncate):
            self._shown[step.file].waiting.append(step)
        elif isinstance(step, Sync):
            self._sync(step)

    def _sync(self, step: Sync) -> None:
        if step.file == "folder":
            if step.is_good:
                self._kept = dict(self._shown)
                self._renamed.clear()
            return
        content = self._shown[step.file]
        if step.is_good:
            for change in content.waiting:
                _apply(content.synced, change)
        # Linux forgets what it could not write: another sync does not bring it back.
        content.waiting.clear()

    def cut(self, chance: random.Random, luck: Luck) -> dict[str, bytes]:
        """Return the files as they may be once the power is back."""
        names = dict(self._kept)
        made = iter(self._made[len(self._made) - self._count_new() :])
        count = 0 if luck == "nothing" else chance.randint(0, len(self._renamed))
        for change in self._renamed[:count]:
            if isinstance(change, Create):
                names[change.file] = next(made)
            else:
                names.pop(change.file, None)
        return {name: _left(content, chance, luck) for name, content in names.items()}

    def _count_new(self) -> int:
        return sum(isinstance(change, Create) for change in self._renamed)


def _apply(data: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, Truncate):
        if change.size <= len(data):
            del data[change.size :]
        else:
            data.extend(bytes(change.size - len(data)))
        return
    if change.offset > len(data):
        data.extend(bytes(change.offset - len(data)))
    data[change.offset : change.offset + len(change.data)] = change.data


def _left(content: _Content, chance: random.Random, luck: Luck) -> bytes:
    data = bytearray(content.synced)
    if luck == "the first" and content.waiting:
        count = chance.randint(0, len(content.waiting))
        for change in content.waiting[:count]:
            _apply(data, change)
        for change in content.waiting[count : count + 1]:
            _tear(data, change, chance, first=True)
    elif luck == "any":
        for change in content.waiting:
            match chance.randint(0, 2):
                case 0:
                    _apply(data, change)
                case 1:
                    _tear(data, change, chance, first=False)
    return bytes(data)


def _tear(data: bytearray, change: Write | Truncate, chance: random.Random, *, first: bool) -> None:
    """Apply some sectors of a write, or the first of them."""
    if isinstance(change, Truncate):
        return
    end = change.offset + len(change.data)
    # Sectors are the disk's, wherever a write begins.
    edges = [change.offset, *range(-(-change.offset // SECTOR_BYTES) * SECTOR_BYTES, end)]
    starts = sorted({at for at in edges if at == change.offset or at % SECTOR_BYTES == 0})
    pieces = list(zip(starts, [*starts[1:], end], strict=True))
    some = pieces[: chance.randint(0, len(pieces))] if first else pieces
    for begin, stop in some:
        if first or chance.random() < 0.5:
            piece = change.data[begin - change.offset : stop - change.offset]
            _apply(data, Write(change.file, begin, piece))


FILES: Final = ("", "-wal", "-journal")


def pick_up(ledger: Path) -> dict[str, bytes]:
    """Read the files of a ledger that have to last."""
    found = {name: Path(f"{ledger}{name}") for name in FILES}
    return {name: path.read_bytes() for name, path in found.items() if path.exists()}


def lay_out(files: Mapping[str, bytes], directory: Path) -> Path:
    """Write files as a power cut left them; return the ledger's path."""
    ledger = directory / "ledger.db"
    for name, content in files.items():
        Path(f"{ledger}{name}").write_bytes(content)
    return ledger
