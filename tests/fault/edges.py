"""A till behind an edge that answers for itself, in every way: it comes back, and says why.

``python -m tests.fault.edges --minutes 10`` takes as long as an outage takes, with the clients' own
waits; the test of the same name takes seconds.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from tests.support.certificates import certificate, server_context
from tests.support.edges import FAULTS, Edge, edge
from tests.support.service import Serving, serving

SUPPORT: Final = Path(__file__).parents[1] / "support"
# The longest wait of a client, and what a busy machine needs beside it.
BACK_OFF_SECONDS: Final = 30.0
MARGIN_SECONDS: Final = 15.0
STALL_SECONDS: Final = 6.0
# What keeps the bytes back in one direction, or in both.
STALLS: Final = ("what is sent is held up", "what comes is held up", "both are held up")
NAMES: Final = (*FAULTS, *STALLS)


# An edge that speaks TLS, and what it shows in the place of its certificate.
BAD_TLS: Final = {
    "a certificate of nobody": "unknown",
    "a certificate of another name": "misnamed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What edges show: one that the clients trust, and others."""

    trusted: Path
    unknown: Path
    misnamed: Path

    @classmethod
    def make(cls, directory: Path) -> Self:
        """Make them in a directory."""
        (directory / "trusted").mkdir()
        trusted = certificate(directory / "trusted", host="localhost")
        misnamed = certificate(directory, host="other.example")
        # Trusted as well, so that only its name is wrong.
        with trusted.open("ab") as file:
            file.write(misnamed.read_bytes())
        return cls(
            trusted=trusted, unknown=certificate(directory, host="localhost"), misnamed=misnamed
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A program that follows many edges at once, and how it names its waits."""

    name: str
    command: Sequence[str]
    timing: Mapping[str, float]


@dataclass(slots=True)
class Told:
    """What one till said."""

    statuses: list[dict[str, object]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    stopped: str | None = None

    @property
    def is_live(self) -> bool:
        return bool(self.statuses) and self.statuses[-1]["state"] == "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a till did in an outage: the causes that it named, and when it was live again."""

    name: str
    causes: list[str]
    told_after_seconds: float | None
    back_after_seconds: float | None
    stopped: str | None


def python(**timing: float) -> Client:
    command = [sys.executable, "-m", "tests.support.follow_all"]
    return Client(name="Python", command=command, timing=timing)


def javascript(node: str, **timing: float) -> Client:
    command = [node, "--experimental-websocket", str(SUPPORT / "follow_all.js")]
    return Client(name="JavaScript", command=command, timing=timing)


async def outage(
    directory: Path,
    client: Client,
    *,
    seconds: float,
    stall_seconds: float = STALL_SECONDS,
    names: Sequence[str] | None = None,
) -> list[Outcome]:
    """Follow through an edge for each fault, let the edges fail for so long, and heal them."""
    names = [*NAMES, *BAD_TLS] if names is None else names
    certificates = Certificates.make(directory)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(directory / "ledger.db"))
        port = urlsplit(service.url).port
        assert port
        edges = {
            name: await stack.enter_async_context(
                edge(port, tls=server_context(certificates.trusted) if name in BAD_TLS else None)
            )
            for name in names
        }
        told = {name: Told() for name in names}
        following = _following(client, edges, told, certificates, key=service.key())
        await stack.enter_async_context(following)
        await _until(lambda: all(one.is_live for one in told.values()), MARGIN_SECONDS * 2)
        began = time.time()
        for name, one in edges.items():
            _break(one, name, stall_seconds, certificates)
        await asyncio.sleep(seconds)
        before = {name: len(one.statuses) for name, one in told.items()}
        healed = time.time()
        for one in edges.values():
            one.fault, one.tls, one.stall_up_seconds, one.stall_down_seconds = None, None, 0.0, 0.0
        number = await _notify(service)
        await _until(
            lambda: all(number in one.events or one.stopped for one in told.values()),
            BACK_OFF_SECONDS + MARGIN_SECONDS,
        )
        return [
            _outcome(name, told[name], told[name].statuses[: before[name]], began, healed)
            for name in names
        ]


def _break(one: Edge, name: str, stall_seconds: float, certificates: Certificates) -> None:
    if name in STALLS:
        one.stall_up_seconds = stall_seconds if name != STALLS[1] else 0.0
        one.stall_down_seconds = stall_seconds if name != STALLS[0] else 0.0
    elif name in BAD_TLS:
        one.tls = server_context(getattr(certificates, BAD_TLS[name]))
    else:
        one.fault = FAULTS[name]
    one.cut()


def _outcome(
    name: str, told: Told, statuses: Sequence[dict[str, object]], began: float, healed: float
) -> Outcome:
    during = [one for one in statuses if float(str(one["at"])) >= began]
    back = [
        float(str(one["at"]))
        for one in told.statuses
        if one["state"] == "live" and float(str(one["at"])) >= healed
    ]
    is_back = told.is_live and bool(told.events)
    return Outcome(
        name=name,
        causes=[str(one["cause"]) for one in during if one["state"] != "live"],
        told_after_seconds=float(str(during[0]["at"])) - began if during else None,
        back_after_seconds=(back[-1] - healed if back else 0.0) if is_back else None,
        stopped=told.stopped,
    )


async def _notify(service: Serving) -> str:
    number = "297553638301777999"
    status, _ = await service.notify({"transactionNo": number})
    assert status == 200
    return number


@asynccontextmanager
async def _following(
    client: Client,
    edges: Mapping[str, Edge],
    told: Mapping[str, Told],
    certificates: Certificates,
    *,
    key: str,
) -> AsyncIterator[Process]:
    trust = str(certificates.trusted)
    process = await asyncio.create_subprocess_exec(
        *client.command,
        stdin=PIPE,
        stdout=PIPE,
        env=os.environ | {"SSL_CERT_FILE": trust, "NODE_EXTRA_CA_CERTS": trust},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    urls = {
        name: f"{'https' if name in BAD_TLS else 'http'}://localhost:{one.port}"
        for name, one in edges.items()
    }
    plan = {"urls": urls, "key": key, "timing": client.timing}
    process.stdin.write(json.dumps(plan).encode() + b"\n")
    reading = asyncio.create_task(_read(process.stdout, told))
    try:
        yield process
    finally:
        process.kill()
        await process.wait()
        await reading


async def _read(lines: asyncio.StreamReader, told: Mapping[str, Told]) -> None:
    async for line in lines:
        said = json.loads(line)
        one = told[said["name"]]
        if "event" in said:
            one.events.append(said["event"])
        elif "stopped" in said:
            one.stopped = said["stopped"]
        else:
            one.statuses.append(said)


async def _until(is_done: Callable[[], bool], seconds: float) -> None:
    """Wait until something shows, for so long at most: who looks finds what is missing."""
    ends_at = time.monotonic() + seconds
    while not is_done() and time.monotonic() < ends_at:
        await asyncio.sleep(0.05)


def main() -> None:
    """Run the outage for both clients, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    seconds = parser.parse_args().minutes * 60
    failed = 0
    node = shutil.which("node")
    for client in (python(), *([javascript(node)] if node else [])):
        with tempfile.TemporaryDirectory() as directory:
            outcomes = asyncio.run(outage(Path(directory), client, seconds=seconds))
        for one in outcomes:
            is_well = one.stopped is None and one.back_after_seconds is not None
            failed += not is_well
            back = "never" if one.back_after_seconds is None else f"{one.back_after_seconds:.1f} s"
            causes = ", ".join(sorted(set(one.causes)))
            sys.stdout.write(f"{client.name}\t{one.name}\tback after {back}\t{causes}\n")
            sys.stdout.flush()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
