"""Check that the fair peer is fair: on the same requests its ledger is the listener's own.

The listener and the peer are sent the same notifications and repeats, one after the other. Then
``listener verify`` must find both ledgers sound, and all rows must be alike but for what names the
ledger or the moment. And the peer must refuse what it cannot do.
"""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench import native, servers, work
from bench.measuring import SEED, Bench

COUNT: Final = 2_000
REPEATS: Final = 300

# Of each table what it holds, but for times, epoch and hashes; those of events' bodies are masked.
_TABLES: Final = {
    "entries": "SELECT seq, kind, merchant_no, store_no, transaction_no, reference, terminal,"
    " provider_status, says, amount, currency, settle_currency, suspect, as_of, sale_seq,"
    " fingerprint, fields FROM entries ORDER BY seq",
    "events": 'SELECT number, stream, "offset", seq, cancelled, body FROM events ORDER BY number',
    "transactions": "SELECT * FROM transactions ORDER BY first_seq",
    "repeats": "SELECT seq, count FROM repeats ORDER BY seq",
    "streams": "SELECT * FROM streams ORDER BY stream",
    "ledger": "SELECT seq, number, repeats, transactions FROM ledger",
    "schema": "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name",
}
_SQLITE_OF_NODE: Final = (
    servers.PEERS.parent / "node_modules/better-sqlite3/build/Release/better_sqlite3.node"
)
_MOMENT: Final = re.compile(r'"id":"[0-9a-f]+-|"time":"[^"]+"')
_TIMES: Final = frozenset({"created_at", "updated_at"})


def check_peer(bench: Bench) -> None:
    """Compare the fair peer's ledger with the listener's.

    Raises:
        BenchError: They differ, one of them is not sound, the peer takes what it must not, or it
            syncs in a dearer way.
    """
    _check_sync(_SQLITE_OF_NODE)
    requests = bench.directory / "requests.check"
    notifications = [*work.notify_requests(count=COUNT, seed=SEED)]
    work.write_requests(requests, [*notifications, *notifications[-REPEATS:], *notifications[:1]])
    generator = native.Generator(
        directory=bench.directory, requests=requests, cores=bench.generator.cores
    )
    found = {}
    for server in (servers.LISTENER, servers.NODE_FAIR):
        ledger = bench.directory / f"check.{server.name}.db"
        with servers.run(server, cores=bench.server_cores, keys=0, ledger=ledger) as running:
            load = generator.post(running.place.port, connections=1, seconds=60.0)
            if load.failed or len(load.shots) != COUNT + REPEATS + 1:
                raise native.BenchError(f"{server.name}: {load.failed} not acknowledged")
            if server is servers.NODE_FAIR:
                _check_refusals(bench, running.place.port)
        verify(bench.directory, ledger)
        found[server.name] = _contents(ledger)
    ours, theirs = found[servers.LISTENER.name], found[servers.NODE_FAIR.name]
    for table, rows in ours.items():
        if rows != theirs[table]:
            raise native.BenchError(
                f"the fair peer's {table} differ: {_first(rows, theirs[table])}"
            )
    bench.results.begin("peer", rounds=1)
    bench.results.add("peer", servers.NODE_FAIR.name, "-", entries=COUNT, repeats=REPEATS + 1)


def verify(directory: Path, ledger: Path) -> None:
    """Run ``listener verify`` on a ledger.

    Raises:
        BenchError: It is not sound; what verify says of it is the text.
    """
    place = servers.Place(directory=directory, database=ledger, port=1, till_port=1)
    servers.write_config(place)
    command = [sys.executable, "-m", "listener", "verify", "--config", str(place.config)]
    done = subprocess.run(command, cwd=servers.ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise native.BenchError(f"listener verify {ledger.name}: {done.stderr.strip()}")


def _check_sync(library: Path) -> None:
    """Check that Node's SQLite was built with the call that Python's syncs with.

    As it comes it was not: then it uses fsync, which writes the file's times, too.
    """
    if not library.exists() or b"fdatasync" not in library.read_bytes():
        raise native.BenchError(
            "better-sqlite3 is missing or syncs with fsync, so that the peer would be slower than"
            " it need be: remove .venv-bench/.installed, and run make bench"
        )


def _check_refusals(bench: Bench, port: int) -> None:
    """Send what is no plain first notification: each is to be refused, and nothing kept of it."""
    (plain,) = work.notifications(count=1, seed=SEED)
    fresh = {**plain, "transactionNo": "399999999999999999"}
    refused = {
        "another status of a known transaction": {**plain, "status": "pending"},
        "an unknown word": {**fresh, "status": "odd"},
        "a refund": {**fresh, "refundAmount": "1.00"},
        "no amount": {**fresh, "amount": "1e3"},
        "an ambiguous value": {**fresh, "reference": "a&b"},
        "an empty value": {**fresh, "reference": ""},
    }
    bodies = [work.form({**fields, "verifySign": work.sign(fields)}) for fields in refused.values()]
    bodies.append(work.form({**fresh, "verifySign": "0" * 32}))
    requests = bench.directory / "requests.refused"
    work.write_requests(requests, [work.request(body) for body in bodies])
    generator = native.Generator(
        directory=bench.directory, requests=requests, cores=bench.generator.cores
    )
    statuses = generator.post(port, connections=1, seconds=10.0).shots["status"].tolist()
    if statuses != [501] * len(refused) + [401]:
        raise native.BenchError(f"the fair peer answers {statuses} to {[*refused, 'unsigned']}")


def _contents(ledger: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of every table, without what names the ledger or the moment."""
    db = sqlite3.connect(ledger)
    try:
        return {table: _rows(db, statement) for table, statement in _TABLES.items()}
    finally:
        db.close()


def _rows(db: sqlite3.Connection, statement: str) -> list[tuple[object, ...]]:
    cursor = db.execute(statement)
    names = [name for name, *_ in cursor.description]
    return [
        tuple(
            None if name in _TIMES else _MOMENT.sub("", value) if name == "body" else value
            for name, value in zip(names, row, strict=True)
        )
        for row in cursor
    ]


def _first(ours: list[tuple[object, ...]], theirs: list[tuple[object, ...]]) -> str:
    """Return the first difference of two tables."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, {len(theirs)} rows"
    pair = next((one, other) for one, other in zip(ours, theirs, strict=True) if one != other)
    return json.dumps(pair)
