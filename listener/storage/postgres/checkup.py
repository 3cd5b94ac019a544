"""Check the state of a ledger on PostgreSQL: the server, the nodes, and whether it lost entries."""

from collections.abc import Iterator
from typing import Any, Final

from listener.errors import LedgerError, LedgerUnavailableError, NoLedgerError
from listener.ledger.model import rfc3339
from listener.storage.checks import UNREADABLE
from listener.storage.findings import Finding, note, problem
from listener.storage.postgres import reading
from listener.storage.postgres.beside import Beside, connected_to
from listener.storage.postgres.location import read_location
from listener.storage.postgres.node import read_nodes
from listener.storage.postgres.schema import (
    COPIED,
    RESTORED,
    SCHEMA_VERSION,
    Identity,
    check_place,
    read_identity,
    read_reason,
)

CLOCK_MS_MAX: Final = 1_000
SNAPSHOT_SECONDS_MAX: Final = 600
QUEUE_USAGE_MAX: Final = 0.1
LAG_MAX: Final = 10_000

_SERVER: Final = (
    "SELECT current_setting('server_version') AS version,"
    " current_setting('synchronous_commit') AS commits,"
    " current_setting('synchronous_standby_names') AS standbys,"
    " pg_notification_queue_usage() AS queue,"
    " (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::int"
    " FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND backend_type = 'client backend')"
    " AS snapshot, pg_database_size(current_database()) AS bytes,"
    " (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) AS synced,"
    " pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all, current_user AS role"
)
_LOST: Final = (
    "SELECT epoch, began_at, seq, missing FROM epochs WHERE reason = 'went_back'"
    " ORDER BY began_at DESC, missing DESC LIMIT 1"
)


def check_up(url: str) -> list[Finding]:
    """Check the state of the ledger at a URL, without disturbing the nodes that serve it.

    Raises:
        LedgerError: The URL cannot be read.
    """
    findings = [Finding(name="ledger", value=read_location(url).shown)]
    try:
        with connected_to(url) as connected:
            findings += _server(connected)
            findings += _ledger(connected)
    except (LedgerError, LedgerUnavailableError) as error:
        findings.append(problem("readable", "no", str(error)))
    except UNREADABLE as error:
        findings.append(problem("readable", "no", f"restore a backup; it is damaged: {error}"))
    return findings


def _server(connected: Beside) -> Iterator[Finding]:
    row: Any = connected.run(lambda db: db.fetchrow(_SERVER))
    yield Finding(name="postgresql", value=row["version"])
    yield Finding(name="bytes", value=row["bytes"])
    yield Finding(name="synchronous_commit", value=row["commits"])
    if row["standbys"] and not row["sees_all"]:
        # Without that right, the role sees neither the state of a standby nor a snapshot.
        advice = f"standbys and snapshots stay unseen: GRANT pg_read_all_stats TO {row['role']}"
        yield note("pg_read_all_stats", "not granted", advice)
    elif row["standbys"] and not row["synced"]:
        yield problem(
            "synchronous_standbys",
            0,
            "none is connected, so that commits wait and nothing is taken: bring one back",
        )
    elif not row["standbys"]:
        yield note(
            "synchronous_standbys",
            0,
            "if this server is lost, so is what its backups do not hold: set"
            " synchronous_standby_names",
        )
    else:
        yield Finding(name="synchronous_standbys", value=row["synced"])
    if row["snapshot"] > SNAPSHOT_SECONDS_MAX:
        advice = "a transaction has been open for this long; end it, or tables grow"
        yield note("oldest_snapshot_seconds", row["snapshot"], advice)
    if row["queue"] > QUEUE_USAGE_MAX:
        advice = "a listener of NOTIFY does not read; end its connection"
        yield problem("notification_queue", f"{row['queue']:.0%}", advice)


def _ledger(connected: Beside) -> Iterator[Finding]:
    try:
        identity = connected.run(read_identity)
    except NoLedgerError:
        connected.run(check_place)
        yield note("exists", "no", "`listener serve` makes it")
        return
    yield from _nodes(connected)
    yield from _content(connected, identity)


def _nodes(connected: Beside) -> Iterator[Finding]:
    nodes = connected.run(read_nodes)
    yield Finding(name="served", value="yes" if nodes else "no")
    for node in nodes:
        name = f"node {node.id}"
        value = f"{node.url} version {node.version} lag {node.lag}"
        if abs(node.clock_ms) > CLOCK_MS_MAX:
            way = "ahead of" if node.clock_ms > 0 else "behind"
            advice = f"its clock is {abs(node.clock_ms)} ms {way} the database's: set it right"
            yield note(name, value, advice)
        elif node.lag > LAG_MAX:
            yield note(name, value, "it publishes behind the others; look at its log")
        else:
            yield Finding(name=name, value=value)
    versions = {node.version for node in nodes}
    if len(versions) > 1:
        yield note("versions", ", ".join(sorted(versions)), "finish the rolling restart")


def _content(connected: Beside, identity: Identity) -> Iterator[Finding]:
    if identity.schema_version > SCHEMA_VERSION:
        advice = (
            f"a later version has served it, and this one knows {SCHEMA_VERSION}: it may go on"
            " during a rolling restart; finish that"
        )
        yield note("schema", identity.schema_version, advice)
    else:
        yield Finding(name="schema", value=identity.schema_version)
    yield Finding(name="created", value=rfc3339(identity.created_at_ms))
    head = connected.run(reading.head)
    yield _epoch(head.epoch, connected.run(read_reason))
    yield Finding(name="entries", value=head.seq)
    yield Finding(name="events", value=head.events)
    yield Finding(name="transactions", value=head.transactions)
    lost: Any = connected.run(lambda db: db.fetchrow(_LOST))
    if lost is not None:
        yield note(
            "went_back",
            f"{rfc3339(lost['began_at'])}: from at least entry {lost['missing']} to {lost['seq']}",
            "acknowledged entries were lost, with a server or by a restore; compare with Pockyt's"
            " own list",
        )


def _epoch(epoch: str, why_new: str | None) -> Finding:
    if why_new is None:
        return Finding(name="epoch", value=epoch)
    advice = {
        COPIED: "this is a copy: the first `listener serve` on it makes a new epoch",
        RESTORED: "this was restored from a dump, or copied, or an earlier version has served it:"
        " the next `listener serve` makes a new epoch",
    }[why_new]
    return note("epoch", epoch, advice)
