"""Create the tables and functions of a ledger, and find out which ledger it is.

Tables are created once; a later version adds to them. A function is never changed: a new version
of it gets a new name, so that nodes of two versions run side by side during a rolling restart.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

import asyncpg

from listener import log
from listener.errors import LedgerError, LedgerUnavailableError, NoLedgerError
from listener.storage.postgres.connection import FAULTS, Connection, connect, hang_up, told_by
from listener.storage.postgres.location import Location
from listener.storage.statements import added_indexes

SCHEMA_VERSION: Final = 1
SECRET_BYTES: Final = 32
# Why a ledger is not the one that was served last: a mark that says so, or another place.
COPIED: Final = "copied"
RESTORED: Final = "restored"
# The functions that this version calls, oldest first; each is in the file of its name.
FUNCTIONS: Final = ("append_v1",)
# From each version to the next; version 1 is schema-postgres.sql. They only add.
MIGRATIONS: Final[dict[int, str]] = {}

# Creating, migrating or renaming the ledger takes the same lock as `append`.
LOCK: Final = "SELECT pg_advisory_xact_lock(1886350196, 1)"
# The place that a ledger is served from: the cluster, the database, and the table itself, which a
# restored dump makes anew. A restart, a promotion, a rename and VACUUM FULL change none of them; a
# copy of the database (TEMPLATE) changes the second. A shift and an XOR of 64 bits cannot overflow.
_PLACE: Final = (
    "(SELECT system_identifier # (to_regclass('ledger')::oid::bigint << 32) # d.oid::bigint"
    " FROM pg_control_system(), pg_database d WHERE d.datname = current_database())"
)
_LEDGER: Final = "SELECT epoch, created_at, schema_version, secret FROM ledger WHERE id = 1"
_MAKE: Final = (
    "INSERT INTO ledger (id, epoch, created_at, system_id, schema_version, secret)"
    f" VALUES (1, $1, $2, {_PLACE}, $3, $4)"
)
_NEWEST: Final = "(SELECT coalesce(max(seq), 0) FROM entries)"
_BEGIN_EPOCH: Final = (
    f"INSERT INTO epochs (epoch, began_at, reason, seq, missing) VALUES ($1, $2, $3, {_NEWEST}, $4)"
)
_RENAME: Final = f"UPDATE ledger SET epoch = $1, is_copy = 0, system_id = {_PLACE} WHERE epoch = $2"
_ORIGIN: Final = f"SELECT is_copy, system_id = {_PLACE} AS is_here FROM ledger WHERE id = 1"
_GROW: Final = "UPDATE ledger SET schema_version = $1 WHERE schema_version < $1"

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which ledger this is: its epoch, when it was created, and which version last served it."""

    epoch: str
    created_at_ms: int
    schema_version: int
    # Seals the cursors of pages; shown to nobody.
    secret: str = field(repr=False)
    # Why `prepare` has begun the epoch; None where it has not.
    why_new: str | None = None


def schema_text() -> str:
    """Read schema-postgres.sql: beside the package in the wheel, at the top level in a checkout."""
    packaged = resources.files("listener.storage.postgres").joinpath("schema.sql")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "schema-postgres.sql").read_text(encoding="utf-8")


def function_text(name: str) -> str:
    """Read the statement that creates a function."""
    file = resources.files("listener.storage.postgres").joinpath(f"{name}.sql")
    return file.read_text(encoding="utf-8")


async def prepare(db: Connection, *, now_ms: int) -> Identity:
    """Create what is missing, and begin a new epoch on a copy or a restored dump.

    Raises:
        LedgerError: The database is another program's, or of a later version.
    """
    with _refusals_told():
        async with db.transaction():
            await db.execute(LOCK)
            row = await _row(db)
            if row is None:
                await _make(db, now_ms=now_ms)
                row = await _row(db)
            await _grow(db, row["schema_version"])
            reason = await read_reason(db)
            if reason is not None:
                await begin_epoch(db, old=row["epoch"], reason=reason, now_ms=now_ms)
                row = await _row(db)
    return _identity(row, why_new=reason)


async def identify(location: Location, *, name: str, now_ms: int) -> Identity:
    """Connect once to a ledger that is to be served; return which it is, with all that it needs.

    Raises:
        LedgerError: It cannot be served.
        LedgerUnavailableError: No server can be reached.
    """
    db = await connect(location, name=name)
    try:
        identity = await prepare(db, now_ms=now_ms)
        # They only make a search quick, so a role that does not own the tables serves without them.
        with suppress(asyncpg.InsufficientPrivilegeError):
            await _add_indexes(db)
    except FAULTS as error:
        raise LedgerUnavailableError(f"the ledger cannot be opened: {told_by(error)}") from error
    finally:
        await hang_up(db)
    if identity.why_new is not None:
        fields = {"epoch": identity.epoch, "reason": identity.why_new}
        log.event(_LOG, "new_epoch", level=logging.WARNING, **fields)
    return identity


async def check_place(db: Connection) -> None:
    """Check that a ledger could be created here; what is created for that is rolled back.

    Raises:
        LedgerError: It could not, as `prepare` says it.
    """
    transaction = db.transaction()
    with _refusals_told():
        await transaction.start()
        try:
            await db.execute(LOCK)
            if await _row(db) is None:
                await _make(db, now_ms=0)
        finally:
            await transaction.rollback()


@contextmanager
def _refusals_told() -> Iterator[None]:
    """Raise what PostgreSQL says of tables that cannot be made as an error that says what to do."""
    try:
        yield
    except (asyncpg.UndefinedColumnError, asyncpg.DuplicateTableError) as error:
        raise LedgerError(
            "the database holds another program's tables; name an empty one"
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise LedgerError(
            f"the role may not make the ledger's tables, or may not use them: {error}"
        ) from error


async def read_identity(db: Connection) -> Identity:
    """Read which ledger this is, without changing anything.

    Raises:
        NoLedgerError: There is none.
        LedgerError: This version cannot read it.
    """
    try:
        row = await _row(db)
    except asyncpg.UndefinedColumnError as error:
        raise LedgerError(
            "the database holds another program's tables; name an empty one"
        ) from error
    if row is None:
        raise NoLedgerError("there is no ledger in this database; `listener serve` makes it")
    return _identity(row)


async def read_reason(db: Connection) -> str | None:
    """Read why the first service on a ledger will begin a new epoch; None where it will not.

    Not detected is a ledger that was put back with its whole cluster, as a disk's snapshot.
    """
    row: Any = await db.fetchrow(_ORIGIN)
    if row["is_copy"]:
        return COPIED
    return None if row["is_here"] else RESTORED


async def _add_indexes(db: Connection) -> None:
    """Make the indexes that a ledger of an earlier version lacks; nobody commits meanwhile."""
    for name, statement in added_indexes(schema_text()):
        if await db.fetchval("SELECT to_regclass($1)", name) is None:
            async with db.transaction():
                # Another node that starts may be making it, however long that takes.
                await db.execute("SET LOCAL lock_timeout = 0")
                await db.execute(LOCK)
                await db.execute(statement)


async def begin_epoch(
    db: Connection, *, old: str, reason: str, now_ms: int, missing: int = 0
) -> None:
    """Begin a new epoch, unless somebody else has just done so; the caller holds the lock."""
    epoch = secrets.token_hex(8)
    changed = await db.execute(_RENAME, epoch, old)
    if changed == "UPDATE 1":
        await db.execute(_BEGIN_EPOCH, epoch, now_ms, reason, missing)


def _identity(row: Any, *, why_new: str | None = None) -> Identity:  # noqa: ANN401 - asyncpg's record
    return Identity(
        epoch=row["epoch"],
        created_at_ms=row["created_at"],
        schema_version=row["schema_version"],
        secret=row["secret"],
        why_new=why_new,
    )


async def _row(db: Connection) -> Any:  # noqa: ANN401 - asyncpg's record
    if await db.fetchval("SELECT to_regclass('ledger')") is None:
        return None
    return await db.fetchrow(_LEDGER)


async def _make(db: Connection, *, now_ms: int) -> None:
    epoch = secrets.token_hex(8)
    await db.execute(schema_text())
    await db.execute(_MAKE, epoch, now_ms, SCHEMA_VERSION, secrets.token_hex(SECRET_BYTES))
    await db.execute(_BEGIN_EPOCH, epoch, now_ms, "made", 0)


async def _grow(db: Connection, found: int) -> None:
    """Add what this version needs; what an older node uses stays."""
    for version in range(found, SCHEMA_VERSION):
        await db.execute(MIGRATIONS[version])
    for name in FUNCTIONS:
        if await db.fetchval("SELECT to_regproc($1)", name) is None:
            if found > SCHEMA_VERSION:
                raise LedgerError(
                    f"the ledger was written by a later version (schema {found}, this one knows"
                    f" {SCHEMA_VERSION}), which has dropped {name}; run that version"
                )
            await db.execute(function_text(name))
    await db.execute(_GROW, SCHEMA_VERSION)
