"""Number and hash entries, so that a changed, lost or added line of the ledger shows."""

import hashlib
from typing import Final

import orjson

from listener.ledger.model import Entry, Fact

GENESIS: Final = "0" * 64


def link(fact: Fact, *, seq: int, recorded_at_ms: int, previous: str) -> Entry:
    """Give a fact its place after the entry whose hash is ``previous``.

    The hash is the hex SHA-256 of the previous hash followed by a JSON array of every column of
    ``schema.sql``'s ``entries`` before the hash, in that order, without spaces.
    """
    row = orjson.dumps([seq, recorded_at_ms, *columns(fact)])
    digest = hashlib.sha256(previous.encode() + row).hexdigest()
    return Entry(seq=seq, recorded_at_ms=recorded_at_ms, fact=fact, hash=digest)


def columns(fact: Fact) -> tuple[str | int | None, ...]:
    """Return a fact as the columns of ``entries`` from ``kind`` to ``fields``."""
    return (
        fact.kind,
        fact.merchant_no,
        fact.store_no,
        fact.transaction_no,
        fact.reference,
        fact.terminal,
        fact.provider_status,
        fact.says,
        fact.amount,
        fact.currency,
        fact.settle_currency,
        fact.suspect,
        fact.as_of,
        fact.sale_seq,
        fact.fingerprint,
        fact.fields,
    )
