"""What a service did to its disk, and what it told the world, in the order in which it did it.

strace records the system calls of a life; this reads them.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

READ: Final = ("recvfrom", "sendto")
FILES: Final = (
    "openat",
    "pwrite64",
    "ftruncate",
    "fdatasync",
    "fsync",
    "unlink",
    # Not used on a ledger; if that changes, the tape can no longer be read, and says so.
    "fallocate",
    "pwritev",
    "pwritev2",
    "rename",
    "renameat",
    "renameat2",
    "sync_file_range",
    "unlinkat",
    "write",
    "writev",
)
OPTIONS: Final = ("-y", "-xx", "-s", "1000000", "-e", f"trace={','.join((*FILES, *READ))}")

_BEGUN: Final = re.compile(r"(\d+) +(\w+)\((.*?)( <unfinished \.\.\.>)?$")
_RESUMED: Final = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_OPEN: Final = re.compile(r'AT_FDCWD<.*?>, "(.*?)", (\S+?)(?:, \d+)?\) += \d')
_WRITE: Final = re.compile(r'\d+<(.*?)>, "(.*?)", (\d+), (\d+)\) += (-?\d+)')
_TRUNCATE: Final = re.compile(r"\d+<(.*?)>, (\d+)\) += (-?\d+)")
_SYNC: Final = re.compile(r"\d+<(.*?)>\) += (-?\d+)")
_UNLINK: Final = re.compile(r'"(.*?)"\) += (-?\d+)')
_SOCKET: Final = re.compile(r'\d+<(.*?)>, "(.*?)"')
_NUMBER: Final = re.compile(rb"[?&]?transactionNo=(\d+)")
_OFFSET: Final = re.compile(rb'"type":"event","stream":"[^"]*","offset":(\d+)')


@dataclass(frozen=True, slots=True)
class Create:
    """A file came into being, or was there already."""

    file: str


@dataclass(frozen=True, slots=True)
class Remove:
    """A file's name was taken away."""

    file: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes were written, and are somewhere between the program and the disk."""

    file: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file got another size."""

    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file, or its folder (""), was brought to the disk; or that failed."""

    file: str
    is_good: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """Somebody was told: Pockyt that a number is kept, or a till of an event."""

    acknowledged: str | None = None
    offset: int | None = None


Step = Create | Remove | Write | Truncate | Sync | Told


def read(tape: Path, *, ledger: Path) -> list[Step]:
    """Read what strace wrote about a life; files are named from the ledger's on ("", "-wal")."""
    reader = _Reader(ledger)
    with tape.open(encoding="ascii") as lines:
        return [step for call in _calls(lines) for step in reader.steps(*call)]


def _calls(lines: Iterable[str]) -> Iterator[tuple[str, str, bool, bool]]:
    """Put calls together that others interrupt; each comes as it begins, and as it ends."""
    begun: dict[tuple[str, str], str] = {}
    for line in lines:
        if found := _BEGUN.match(line):
            thread, call, said, is_open = found.groups()
            if is_open:
                begun[thread, call] = said
            yield call, said, True, not is_open
        elif found := _RESUMED.match(line):
            thread, call, said = found.groups()
            yield call, begun.pop((thread, call)) + said, False, True


class _Reader:
    """Makes steps of calls."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = str(ledger)
        self._folder = str(ledger.parent)
        # The last that was asked over each connection.
        self._asked: dict[str, bytes] = {}

    def steps(self, call: str, said: str, begins: bool, ends: bool) -> Iterator[Step]:
        """Make the steps of a call: what is told counts as it begins, all else as it ends."""
        if call == "sendto" and begins:
            yield from self._tell(said)
        elif call == "recvfrom" and ends:
            self._hear(said)
        elif call in FILES and ends:
            yield from self._file(call, said)

    def _file(self, call: str, said: str) -> Iterator[Step]:
        if call == "openat":
            found = _OPEN.match(said)
            name = self._name(found[1]) if found else None
            if found and name is not None and "O_CREAT" in found[2]:
                yield Create(name)
        elif call == "pwrite64":
            written = _WRITE.match(said)
            assert written, said[:200]
            name, done = self._name(written[1]), int(written[5])
            if name is not None and done > 0:
                yield Write(name, int(written[4]), _bytes(written[2])[:done])
        elif call in {"fdatasync", "fsync"}:
            synced = _SYNC.match(said)
            assert synced, said[:200]
            folder = _bytes(synced[1]).decode() == self._folder
            name = "folder" if folder else self._name(synced[1])
            if name is not None:
                yield Sync(name, is_good=synced[2] == "0")
        else:
            yield from self._other(call, said)

    def _other(self, call: str, said: str) -> Iterator[Step]:
        if call == "ftruncate" and (cut := _TRUNCATE.match(said)):
            name = self._name(cut[1])
            if name is not None and cut[3] == "0":
                yield Truncate(name, int(cut[2]))
        elif call == "unlink" and (gone := _UNLINK.match(said)):
            name = self._name(gone[1])
            if name is not None and gone[2] == "0":
                yield Remove(name)
        else:
            paths = re.findall(r'[<"]((?:\\x[0-9a-f]{2})+)[>"]', said)
            assert not any(self._name(path) for path in paths), f"unknown on a ledger: {call}"

    def _hear(self, said: str) -> None:
        if found := _SOCKET.match(said):
            self._asked[found[1]] = (self._asked.get(found[1], b"") + _bytes(found[2]))[-2_000:]

    def _tell(self, said: str) -> Iterator[Told]:
        found = _SOCKET.match(said)
        data = _bytes(found[2]) if found else b""
        if found and data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"\r\n\r\nsuccess"):
            yield Told(acknowledged=_NUMBER.findall(self._asked[found[1]])[-1].decode())
        for offset in _OFFSET.findall(data):
            yield Told(offset=int(offset))

    def _name(self, path: str) -> str | None:
        """Name a file from the ledger's on; None where it is no part of it that has to last."""
        name = _bytes(path).decode()
        if not name.startswith(self._ledger):
            return None
        rest = name.removeprefix(self._ledger)
        return None if rest in {"-shm", ".lock"} else rest


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
