"""Follow a guide as its reader would: every block in order, in one shell.

The blocks of a guide, by the word after the fence:

- ``console``: lines that begin with ``$ `` are typed into a shell (a line that ends with a
  backslash goes on), the others are what it shows.
- ``json``: the answer of the command before, with line breaks for the reader.
- ``text``: what the program that goes on has shown since.
- any other whose first line is a comment with a file's name: that file.

Every block is one of these, or stands under a comment that says why it is not run. The comments:
``<!-- not run: why -->``, ``<!-- goes on -->`` (the program does not end; an end of its shown
lines is waited for), ``<!-- fails -->`` (it ends with another exit code than 0), and
``<!-- Ctrl-C -->`` (the program that was started last and goes on is interrupted).

In what is shown, ``…`` stands for any text, a line of it alone for any lines, and in JSON a member
or an element of it for any more. Times, hashes, and the number of spaces may differ.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

GUIDES: Final = Path(__file__).parents[2] / "docs" / "guides"
DEADLINE_SECONDS: Final = 20.0
ANY: Final = "…"
# The shell says that a command has ended, on a line of its own.
ENDED: Final = "--- ended with"

_NOT_RUN: Final = re.compile(r"not run: \S.*")
_MARKS: Final = frozenset({"goes on", "fails", "Ctrl-C"})
_FENCE: Final = re.compile(r"```(\w*)$")
_COMMENT: Final = re.compile(r"<!-- (.*) -->$")
_FILE: Final = re.compile(r"(?:#|//) ([\w.-]+\.\w+)$")
_VARIED: Final = (
    re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
    re.compile(r"\b[0-9a-f]{64}\b"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of a guide; ``mark`` is the comment above it."""

    language: str
    text: str
    mark: str | None
    where: str

    @property
    def is_run(self) -> bool:
        return self.mark is None or not _NOT_RUN.fullmatch(self.mark)

    @property
    def file(self) -> str | None:
        """The name of the file that it is."""
        named = _FILE.match(self.text.partition("\n")[0])
        return named[1] if named and self.language != "console" else None

    def commands(self) -> list[tuple[str, str]]:
        """Split a console into its commands, each with what it shows."""
        found: list[tuple[list[str], list[str]]] = []
        goes_on = False
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(([line[2:]], []))
            elif goes_on:
                found[-1][0].append(line)
            else:
                assert found, f"{self.where}: a console begins with a command"
                found[-1][1].append(line)
            goes_on = line.endswith("\\") and (goes_on or line.startswith("$ "))
        return [("\n".join(command), "\n".join(shown)) for command, shown in found]


def read_guide(path: Path) -> list[Block]:
    """Read the blocks of a guide, and the comments that are steps of their own."""
    blocks: list[Block] = []
    mark: str | None = None
    fence: tuple[str, int, list[str]] | None = None
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if fence is not None:
            if line != "```":
                fence[2].append(line)
                continue
            language, at, lines = fence
            text, where = "\n".join(lines), f"{path.name}:{at}"
            blocks.append(Block(language=language, text=text, mark=mark, where=where))
            fence = mark = None
        elif opened := _FENCE.match(line):
            fence = (opened[1], number, [])
        elif said := _COMMENT.match(line):
            mark = said[1]
            known = mark in _MARKS or _NOT_RUN.fullmatch(mark)
            assert known, f"{path.name}:{number}: what does <!-- {mark} --> mean?"
            if mark == "Ctrl-C":
                where = f"{path.name}:{number}"
                blocks.append(Block(language="", text="", mark=mark, where=where))
                mark = None
    return blocks


@dataclass(slots=True, kw_only=True)
class _GoingOn:
    """A program that goes on; ``read`` is how much of its output has been looked at."""

    process_id: int
    output: Path
    where: str
    read: int = 0

    def unread(self) -> str:
        return self.output.read_text()[self.read :]


@dataclass(slots=True, kw_only=True)
class Reader:
    """Somebody who follows guides in one shell; ``filled_in`` is what he puts in for our words."""

    folder: Path
    shell: subprocess.Popen[str]
    filled_in: Mapping[str, str]
    last: str = ""
    going_on: list[_GoingOn] = field(default_factory=list)

    def follow(self, path: Path, *, only: Callable[[Block], bool] = lambda _block: True) -> None:
        """Do what a guide says, block by block."""
        for block in filter(only, read_guide(path)):
            if block.is_run:
                self._do(block)

    def _do(self, block: Block) -> None:
        text = self._fill_in(block.text)
        if block.mark == "Ctrl-C":
            self._interrupt(block.where)
        elif block.language == "console":
            for command, shown in block.commands():
                self._type(block, self._fill_in(command), self._fill_in(shown))
        elif block.language == "json":
            check_json(self.last, text, where=block.where)
        elif block.language == "text":
            self._await(text, where=block.where)
        else:
            assert block.file, f"{block.where}: not run, not a file's, and no comment says why"
            (self.folder / block.file).write_text(f"{text}\n")

    def _fill_in(self, text: str) -> str:
        # In one go: a port that was put in may hold the digits of another that is to be.
        ours = "|".join(map(re.escape, self.filled_in))
        return re.sub(ours, lambda found: self.filled_in[found[0]], text)

    def _type(self, block: Block, command: str, shown: str) -> None:
        if block.mark == "goes on":
            self._begin(command, where=block.where)
            self._await(shown, where=block.where)
            return
        code, self.last = self._run(command)
        assert (code != 0) == (block.mark == "fails"), f"{block.where}: {command}: {self.last}"
        assert matches(self.last, shown), _unlike(block.where, command, self.last, shown)

    def _run(self, command: str) -> tuple[int, str]:
        """Run a command in the shell; return its exit code, and what it showed."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        # Nothing that it starts may read the commands to come.
        line = f"{{\n{command}\n}} </dev/null\nprintf '\\n%s %s\\n' '{ENDED}' $?\n"
        self.shell.stdin.write(line)
        self.shell.stdin.flush()
        told: list[str] = []
        for line in self.shell.stdout:
            if line.startswith(ENDED):
                return int(line.removeprefix(ENDED)), "".join(told)
            told.append(line)
        raise AssertionError(f"the shell ended at {command}: {''.join(told)}")

    def _begin(self, command: str, *, where: str) -> None:
        output = self.folder / f".shown-{len(self.going_on)}"
        output.touch()
        code, told = self._run(f"(exec {command}) >{output} 2>&1 &\necho $!")
        assert code == 0, told
        self.going_on.append(_GoingOn(process_id=int(told), output=output, where=where))

    def _await(self, shown: str, *, where: str) -> None:
        """Wait until the program that was started last has shown something."""
        program = self.going_on[-1]
        ends_at = time.monotonic() + DEADLINE_SECONDS
        while not matches(program.unread(), shown):
            late = time.monotonic() > ends_at
            assert not late, _unlike(where, program.where, program.unread(), shown)
            time.sleep(0.02)
        program.read += len(program.unread())

    def _interrupt(self, where: str) -> None:
        # Nobody is so quick that the program has no time to acknowledge what it has just shown.
        time.sleep(0.5)
        os.kill(self.going_on[-1].process_id, signal.SIGINT)
        ends_at = time.monotonic() + DEADLINE_SECONDS
        while _runs(self.going_on[-1].process_id):
            assert time.monotonic() < ends_at, f"{where}: it does not end"
            time.sleep(0.02)


@contextmanager
def reader(folder: Path, *, filled_in: Mapping[str, str]) -> Iterator[Reader]:
    """Sit somebody down at a shell in a folder; what was started there ends with it."""
    inherited = {name: text for name, text in os.environ.items() if not _is_ours(name)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # A shell that runs the tests in the background has them, and all they start, ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        cwd=folder,
        # As at a terminal, what a program says is there at once.
        env={**inherited, "PATH": programs, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as shell:
        signal.signal(signal.SIGINT, before)
        found = Reader(folder=folder, shell=shell, filled_in=filled_in)
        try:
            yield found
        finally:
            for program in reversed(found.going_on):
                _end(program.process_id)
            os.killpg(shell.pid, signal.SIGKILL)


def matches(told: str, shown: str) -> bool:
    """Return whether a program showed what a guide shows; anything fits where it shows nothing."""
    lines = [line for line in map(_squeeze, shown.splitlines()) if line]
    if not lines:
        return True
    pattern = "".join(r"(?:.*\n)*" if line == ANY else _pattern(line) + r"\n" for line in lines)
    wanted = "".join(f"{line}\n" for line in map(_squeeze, told.splitlines()) if line)
    return re.fullmatch(pattern, wanted) is not None


def check_json(told: str, shown: str, *, where: str) -> None:
    """Check an answer against the one that a guide shows."""
    wanted, found = json.loads(shown), json.loads(told)
    assert _fits(found, wanted), _unlike(where, "the answer", json.dumps(found, indent=2), shown)


def _fits(found: object, wanted: object) -> bool:
    if wanted == ANY:
        return True
    if isinstance(wanted, dict) and isinstance(found, dict):
        named = {name: value for name, value in wanted.items() if name != ANY}
        is_whole = ANY in wanted or named.keys() == found.keys()
        return is_whole and all(n in found and _fits(found[n], v) for n, v in named.items())
    if isinstance(wanted, list) and isinstance(found, list):
        some = wanted[:-1] if wanted and wanted[-1] == ANY else wanted
        is_whole = len(some) == len(found) or (some != wanted and len(some) < len(found))
        return is_whole and all(_fits(f, w) for f, w in zip(found, some, strict=False))
    if isinstance(wanted, str) and isinstance(found, str):
        return re.fullmatch(_pattern(wanted), found) is not None
    return type(found) is type(wanted) and found == wanted


def _pattern(text: str) -> str:
    """Write shown text as a pattern: what may differ, may."""
    for varied in _VARIED:
        text = varied.sub(lambda found: "".join("\0" for _ in found[0]), text)
    parts = re.split(f"({ANY}|\0+)", text)
    return "".join(
        ".*" if part == ANY else rf"\S{{{len(part)}}}" if part[:1] == "\0" else re.escape(part)
        for part in parts
    )


def _squeeze(line: str) -> str:
    return " ".join(line.split())


def _unlike(where: str, of: str, told: str, shown: str) -> str:
    return f"{where}: {of}\nshowed\n{told}\nand not\n{shown}"


def _is_ours(name: str) -> bool:
    return name.startswith("LISTENER") or name in ("KEY", "ADMIN", "POS_KEY", "POCKYT_TOKEN")


def _runs(process_id: int) -> bool:
    """Return whether a process still runs; one that ended and was not reaped does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    # It may end between the opening and the reading.
    except (FileNotFoundError, ProcessLookupError):
        return False


def _end(process_id: int) -> None:
    """End a program as an operator does, so that what it has measured is written."""
    ends_at = time.monotonic() + DEADLINE_SECONDS
    while _runs(process_id) and time.monotonic() < ends_at:
        try:
            os.kill(process_id, signal.SIGTERM)
        except ProcessLookupError:
            return
        time.sleep(0.05)
