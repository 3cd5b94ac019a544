"""Send mutated requests with and without the fast path: ``python -m tests.property.paths``.

Both services must answer alike, byte for byte but for the date, leave the connection in the same
state, and hold the same entries at the end. Requests are cut into segments, run together, broken
in a byte or in their head; some senders stop sending in the middle.
"""

import asyncio
import contextlib
import logging
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, cast
from unittest.mock import patch
from urllib.parse import urlsplit

import click
import orjson

from listener.ledger.results import ReadEntry
from listener.ledger.scope import Scope
from listener.web import connections, http_connection
from listener.web.connections import Connections, Peer
from listener.web.http_connection import HttpConnection
from listener.web.lobby import Guest
from tests.support.service import FIELDS, FORM, MERCHANT_NO, STORE_NO, Serving, serving, signed

REQUESTS: Final = 100_000
AT_ONCE: Final = 64
PROGRESS_SECONDS: Final = 5.0
# Turns of the loop in which a service has taken what came over loopback, if nothing else waits.
TURNS_TO_ARRIVE: Final = 6
QUIET_TURNS: Final = 4
LARGE_BYTES: Final = 16_000
QUIET_SECONDS_MAX: Final = 30.0

_DATE: Final = re.compile(rb"Date: [^\r]*")
_JSON: Final = "application/json"

_PATHS: Final = (
    *(f"/notify/{MERCHANT_NO}/{STORE_NO}",) * 12,
    f"/notify/{MERCHANT_NO}",
    f"/notify/{MERCHANT_NO}/",
    f"/notify//{MERCHANT_NO}/{STORE_NO}",
    f"//notify/{MERCHANT_NO}/{STORE_NO}",
    f"/Notify/{MERCHANT_NO}/{STORE_NO}",
    f"/notify/{MERCHANT_NO}/{STORE_NO}?token=1",
    f"/notify/{MERCHANT_NO}/%33{STORE_NO[1:]}",
    f"/notify/{MERCHANT_NO}/999999",
    f"/notify/{MERCHANT_NO}/{STORE_NO}/more",
    "/notify/999999/1",
    "/notify/",
    "/healthz",
    f"http://pos.example.com/notify/{MERCHANT_NO}/{STORE_NO}",
)
_METHODS: Final = (*("POST",) * 20, "GET", "PUT", "post", "HEAD", "OPTIONS", "POST ")
_VERSIONS: Final = (
    *("HTTP/1.1",) * 16,
    *("HTTP/1.0",) * 2,
    "HTTP/1.0\r\nConnection: keep-alive",
    "HTTP/2.0",
    "HTTP/1.1 ",
)
_TYPES: Final = (
    *(FORM,) * 10,
    f"{FORM}; charset=UTF-8",
    f"{FORM};charset=utf-8, {FORM}",
    f'{FORM}; a="b, image/png"',
    f"{FORM}, image/png",
    FORM.upper(),
    "text/plain",
    _JSON,
    "application/vnd.pockyt+json",
    "image/png",
    "",
    None,
)
_HEADERS: Final = (
    "X-Request-ID: {number:032x}",
    "X-Forwarded-For: 192.0.2.{number}",
    "User-Agent: Java/1.8.0",
    "Accept: */*",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "Expect: more",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Content-Encoding: identity",
    "Content-Encoding: UTF-8",
    "Content-Encoding: gzip",
    "Content-Length: 5",
    "Content-Type: text/plain",
    "Host: another.example.com",
    "Authorization: Bearer abc",
    "X-Long: {long}",
    "X-Empty:",
    " folded: yes",
    "No colon",
    "Bad\x00Name: 1",
)
_LENGTHS: Final = (
    *("{length}",) * 16,
    "{more}",
    "{less}",
    "+{length}",
    "{length} ",
    "0",
    "70000",
    "x",
)


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent on one connection: segments, each after the last was answered, or at once."""

    segments: tuple[bytes, ...]
    waits: bool
    stops_sending: bool
    requests: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it on the wire."""

    answers: bytes
    is_open: bool


def make_case(seed: int) -> Case:
    """Make up what somebody sends."""
    chance = random.Random(seed)
    # What comes of an odd request before another one depends on when that arrives.
    waits = chance.random() < 0.6
    count = chance.choice((1, 1, 1, 2, 3))
    requests = [_request(chance, seed * 10 + n, is_plain=not waits) for n in range(count)]
    if chance.random() < 0.15:
        requests.append(requests[0])
    whole = chance.random() < 0.7
    segments = requests if whole else [b"".join(requests)]
    if waits and chance.random() < 0.4:
        segments = [part for segment in segments for part in _cut(chance, segment)]
    waits = waits or max(map(len, segments)) > LARGE_BYTES
    return Case(tuple(segments), waits, chance.random() < 0.2, len(requests))


def _request(chance: random.Random, number: int, *, is_plain: bool) -> bytes:
    body = _body(chance, number)
    is_odd = not is_plain and chance.random() < 0.6

    def pick(choices: Sequence[str | None]) -> str | None:
        return chance.choice(choices) if is_odd else choices[0]

    length = (pick(_LENGTHS) or "").format(
        length=len(body), more=len(body) + 3, less=max(0, len(body) - 3)
    )
    lines = [f"{pick(_METHODS)} {pick(_PATHS)} {pick(_VERSIONS)}", "Host: 127.0.0.1"]
    kind = pick(_TYPES)
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    lines.append(f"Content-Length: {length}")
    count = chance.randint(0, 4)
    # One that is sent twice is odd as well.
    headers = chance.choices(_HEADERS, k=count) if is_odd else chance.sample(_HEADERS[:5], count)
    for header in headers:
        filled = header.format(number=number % 250, long="x" * chance.choice((100, 2_100, 9_000)))
        lines.insert(chance.randint(1, len(lines)), filled)
    if is_odd and chance.random() < 0.05:
        lines = [line for line in lines if not line.startswith("Host")]
    end = "\n" if is_odd and chance.random() < 0.06 else "\r\n"
    sent = end.join([*lines, "", ""]).encode() + body
    return _broken(chance, sent) if not is_plain and chance.random() < 0.3 else sent


def _body(chance: random.Random, number: int) -> bytes:
    fields = {**FIELDS, "transactionNo": str(300_000_000 + number), "reference": f"r{number}"}
    fields["status"] = chance.choice(("success", "closed", "pending", "disputed"))
    odd = chance.random()
    if odd < 0.03:
        fields["note"] = "x" * chance.choice((60_000, 65_600, 70_000))
    elif odd < 0.06:
        fields["note"] = "a&b=ü%"
    elif odd < 0.08:
        fields["amount"] = "many"
    body = signed(fields)
    odd = chance.random()
    if odd < 0.05:
        return body.replace(b"13.00", b"12.00")
    if odd < 0.08:
        return body + b"&amount=13.00"
    if odd < 0.11:
        return b"\xef\xbb\xbf" + body + b"\r\n"
    if odd < 0.14:
        return orjson.dumps(dict(part.split("=", 1) for part in body.decode().split("&")))
    return b"" if odd < 0.16 else body


def _broken(chance: random.Random, sent: bytes) -> bytes:
    """Change, add or take away a byte; most of them in the head."""
    end = sent.find(b"\r\n\r\n") + 4 if chance.random() < 0.7 else len(sent)
    at = chance.randrange(max(1, end))
    new = bytes([chance.choice((chance.randrange(256), *b"\r\n :0"))])
    return sent[:at] + chance.choice((new, new + sent[at : at + 1], b"")) + sent[at + 1 :]


def _cut(chance: random.Random, sent: bytes) -> list[bytes]:
    """Cut a request somewhere, or where many clients do: behind its head."""
    head = sent.find(b"\r\n\r\n") + 4
    cuts = [chance.randint(0, len(sent)), chance.choice((head, chance.randint(0, len(sent))))]
    edges = sorted({0, len(sent), *cuts[chance.randrange(2) :]})
    return [sent[begin:end] for begin, end in pairwise(edges)]


class Client(asyncio.Protocol):
    """The sender's side of a connection."""

    def __init__(self) -> None:
        self.answers = b""
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Collect an answer."""
        self.answers += data

    def eof_received(self) -> bool:
        """See that the service has closed."""
        self.is_open = False
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        """See that the line is cut."""
        self.is_open = False


class Watched:
    """The connections of all services of this process, by the port of their sender."""

    def __init__(self) -> None:
        self._made: list[HttpConnection] = []
        self._by_port: dict[int, HttpConnection | Guest] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch whoever is let in."""
        admit = Connections.admit

        def watched(of: Connections, peer: Peer) -> bool:
            if isinstance(peer, Guest):
                self._by_port[peer.socket.getpeername()[1]] = peer
            elif isinstance(peer, HttpConnection):
                self._made.append(peer)
            return admit(of, peer)

        with patch.object(Connections, "admit", watched):
            yield

    def of(self, port: int) -> HttpConnection | Guest | None:
        """Return the connection of a sender."""
        for connection in self._made:
            if connection.transport is not None:
                peer = cast(tuple[str, int], connection.transport.get_extra_info("peername"))
                self._by_port[peer[1]] = connection
        self._made.clear()
        return self._by_port.get(port)


async def send(service: Serving, case: Case, watched: Watched) -> Outcome:
    """Send a case, and see what comes of it once it is the sender's turn."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(service.url)
    transport, client = await loop.create_connection(Client, parts.hostname or "", parts.port or 0)
    port = transport.get_extra_info("sockname")[1]
    for segment in case.segments:
        transport.write(segment)
        await (_quiet(client, watched, port) if case.waits else _arrive())
    if case.stops_sending and client.is_open:
        with contextlib.suppress(OSError):
            transport.write_eof()
    await _quiet(client, watched, port)
    outcome = Outcome(_DATE.sub(b"Date: -", client.answers), client.is_open)
    transport.abort()
    return outcome


async def _quiet(client: Client, watched: Watched, port: int) -> None:
    """Wait until the service waits for the sender."""
    await _arrive()
    quiet = 0
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    while client.is_open and quiet < QUIET_TURNS:
        connection = watched.of(port)
        is_waiting = connection is not None and is_quiet(connection)
        quiet = quiet + 1 if is_waiting else 0
        await asyncio.sleep(0 if is_waiting else 0.001)
        assert time.monotonic() < deadline, "a service neither answers nor waits"


def is_quiet(connection: HttpConnection | Guest) -> bool:
    """Return whether a connection has ended, or waits for its sender."""
    if isinstance(connection, Guest):
        return connection.waits_for_peer and not connection.is_ready
    return connection.transport is None or connection.waits_for_peer


async def _arrive() -> None:
    for _ in range(TURNS_TO_ARRIVE):
        await asyncio.sleep(0)


async def entries_of(service: Serving) -> list[tuple[object, ...]]:
    """Return all that a service holds of what it was told, in an order of its own."""
    lines: list[ReadEntry] = []
    while page := await service.ledger.read_entries(after=len(lines), limit=500, scope=Scope()):
        lines += page
    return sorted(
        (fact.fingerprint or "", fact.kind, fact.fields, fact.store_no or "", held, count)
        for fact, held, count in (
            (line.entry.fact, line.held or "", line.deliveries.count) for line in lines
        )
    )


@contextlib.asynccontextmanager
async def services(directory: Path) -> AsyncIterator[tuple[Serving, Serving]]:
    """Run a service with the fast path, and one without; neither minds how often it refuses."""
    with (
        patch.object(http_connection, "LINGER_SECONDS", 0.3),
        patch.object(connections, "REFUSALS_PER_SECOND", sys.maxsize),
    ):
        async with (
            serving(directory / "fast.db", fast_path=True, confirm="off") as fast,
            serving(directory / "plain.db", fast_path=False, confirm="off") as plain,
        ):
            yield fast, plain


async def compare(seeds: Sequence[int], *, directory: Path) -> Counter[str]:
    """Send cases to both services, many at a time; return what happened.

    Raises:
        AssertionError: They differ.
    """
    watched = Watched()
    happened: Counter[str] = Counter()
    with watched.watching():
        async with services(directory) as both:
            for begin in range(0, len(seeds), AT_ONCE):
                chunk = seeds[begin : begin + AT_ONCE]
                cases = [make_case(seed) for seed in chunk]
                fast, plain = [
                    await asyncio.gather(*(send(one, case, watched) for case in cases))
                    for one in both
                ]
                for seed, case, one, other in zip(chunk, cases, fast, plain, strict=True):
                    assert one == other, f"seed {seed}: {case}\n{one}\n{other}"
                    happened["requests"] += case.requests
                    happened["acknowledged"] += one.answers.count(b"\r\n\r\nsuccess")
                    happened["refused"] += len(re.findall(rb"HTTP/1.1 [45]", one.answers))
                    happened["closed"] += not one.is_open
            assert await entries_of(both[0]) == await entries_of(both[1])
    return happened


@click.command(help=__doc__)
@click.option("--requests", default=REQUESTS, show_default=True, help="How many at least.")
@click.option("--seed", default=1, show_default=True, help="Of the first connection.")
@click.option("--at-once", default=4_096, show_default=True, help="Connections on one ledger.")
def main(requests: int, seed: int, at_once: int) -> None:
    """Send them all, and print what happened."""
    # Thousands of refusals would be logged.
    logging.disable(logging.CRITICAL)
    try:
        happened = _compare_many(requests=requests, seed=seed, at_once=at_once)
    except AssertionError as error:
        click.echo(f"FAILED {error}")
        sys.exit(1)
    finally:
        logging.disable(logging.NOTSET)
    click.echo("alike: " + ", ".join(f"{n} {name}" for name, n in happened.items()))


def _compare_many(*, requests: int, seed: int, at_once: int) -> Counter[str]:
    memory = Path("/dev/shm")
    happened: Counter[str] = Counter()
    while happened["requests"] < requests:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
            seeds = range(seed, seed + at_once)
            happened += asyncio.run(compare(seeds, directory=Path(directory)))
        seed += at_once
        click.echo(f"{happened['requests']}/{requests} requests", err=True)
    return happened


if __name__ == "__main__":
    main()
