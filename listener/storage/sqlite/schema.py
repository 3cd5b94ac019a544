"""Create the tables of a ledger in a new file, and bring those of an older one up to date."""

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from listener.errors import LedgerError
from listener.ledger.chain import GENESIS
from listener.storage.sqlite import statements
from listener.storage.statements import added_indexes

SCHEMA_VERSION: Final = 1
FIRST_VERSION: Final = 1
SECRET_BYTES: Final = 32
# "pokt": distinguishes our file from any other SQLite database.
APPLICATION_ID: Final = 0x706F6B74
# The migrations from each released version to the next; version 1 is schema.sql.
MIGRATIONS: Final[dict[int, str]] = {}


def schema_text() -> str:
    """Read schema.sql: beside the package in the wheel, at the top level in a checkout."""
    packaged = resources.files("listener.storage.sqlite").joinpath("schema.sql")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "schema.sql").read_text(encoding="utf-8")


def is_current(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether a file is a ledger of this version; False if it is older, or a new file.

    Raises:
        LedgerError: It is another program's, or of no version that this program knows.
    """
    (found,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise LedgerError(f"{path} is another program's database; name a new file")
    if found > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} was written by a later version (schema {found}, this one knows"
            f" {SCHEMA_VERSION}); run that version"
        )
    if tables and found < FIRST_VERSION:
        raise LedgerError(
            f"{path} is of no version that this program knows (schema {found}), so its header is"
            " damaged: restore a backup"
        )
    return bool(tables) and found == SCHEMA_VERSION


def is_new(db: sqlite3.Connection) -> bool:
    """Return whether a file holds no tables yet."""
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not tables


def migrate(db: sqlite3.Connection, path: Path, *, clock: Callable[[], int]) -> None:
    """Bring the file to this version's schema, within the caller's transaction."""
    # Another process may have done it while this one waited.
    if is_current(db, path):
        return
    (found,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    steps = [MIGRATIONS[n] for n in range(found, SCHEMA_VERSION)] if tables else []
    for statement in _statements("\n".join(steps or [schema_text()])):
        db.execute(statement)
    if not tables:
        db.execute(
            statements.MAKE_LEDGER,
            (secrets.token_hex(8), clock(), GENESIS, secrets.token_hex(SECRET_BYTES)),
        )
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def add_indexes(db: sqlite3.Connection) -> None:
    """Make the indexes that a ledger of an earlier version lacks, as its one writer."""
    for _, statement in added_indexes(schema_text()):
        db.execute(statement)


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; executescript would end the surrounding transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
