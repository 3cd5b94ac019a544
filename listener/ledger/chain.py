"""Chain the hashes of entries, so that a changed, lost or added line of the ledger shows.

The hash of an entry is the hex SHA-256 of the hash before it, followed by a JSON array, without
spaces, of all its columns before the hash.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import orjson
from msgspec import to_builtins

from listener.ledger.model import Entry, Fact

GENESIS: Final = "0" * 64

# The fields of a fact are columns of the table of entries, with the same names in the same order.
FACT_COLUMNS: Final = Fact.__struct_fields__
ENTRY_COLUMNS: Final = ("seq", "recorded_at", *FACT_COLUMNS, "hash")


def columns(entry: Entry) -> tuple[str | int | None, ...]:
    """Return an entry's values for ENTRY_COLUMNS, without the hash."""
    return (entry.seq, entry.recorded_at_ms, *to_builtins(entry.fact))


def digest(previous: str, row: Iterable[str | int | None]) -> str:
    """Return the hash of an entry, given as its columns, that follows another entry's hash."""
    return hashlib.sha256(previous.encode() + orjson.dumps(row)).hexdigest()


def text_after_seq(entry: Entry) -> str:
    """Return the hashed text of an entry after its seq, for a database that adds the rest.

    The whole text is the hash before, ``[``, the seq, ``,`` and this.
    """
    return orjson.dumps(columns(entry)[1:]).decode()[1:]
