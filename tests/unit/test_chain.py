"""The hash chain: each entry covers itself and the one before it."""

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from listener.ledger.chain import (
    ENTRY_COLUMNS,
    FACT_COLUMNS,
    GENESIS,
    columns,
    digest,
    text_after_seq,
)
from listener.ledger.model import Entry, Fact, Kind, Status
from listener.storage.sqlite.opening import connect

FACT: Final = Fact(
    kind=Kind.QUERY,
    merchant_no="200043",
    store_no="303660",
    transaction_no="297553638301777927",
    reference="Bestellung 7 für Ü",
    terminal="T-42",
    provider_status="closed",
    says=Status.CANCELLED,
    amount="13.00",
    currency="USD",
    settle_currency="USD",
    suspect="ambiguous",
    as_of=3,
    sale_seq=1,
    fingerprint="f" * 64,
    fields='{"status":"closed"}',
)
OTHERS: Final[dict[str, object]] = {
    "kind": Kind.ANSWER,
    "says": Status.PAID,
    "as_of": 4,
    "sale_seq": 2,
}
NULLABLE: Final = [
    name for name in FACT_COLUMNS if name not in ("kind", "merchant_no", "transaction_no", "fields")
]


def linked(fact: Fact = FACT, *, seq: int = 5, at_ms: int = 7, previous: str = GENESIS) -> Entry:
    entry = Entry(seq=seq, recorded_at_ms=at_ms, fact=fact)
    return replace(entry, hash=digest(previous, columns(entry)))


def test_a_hash_is_what_any_program_works_out_from_the_columns() -> None:
    row = [5, 7, "query", "200043", "303660", "297553638301777927", "Bestellung 7 für Ü", "T-42"]
    row += ["closed", "cancelled", "13.00", "USD", "USD", "ambiguous", 3, 1, "f" * 64]
    row += ['{"status":"closed"}']
    text = json.dumps(row, separators=(",", ":"), ensure_ascii=False)
    assert linked().hash == hashlib.sha256(("0" * 64 + text).encode()).hexdigest()


def test_a_database_may_complete_the_text_that_is_hashed() -> None:
    text = f"{GENESIS}[5,{text_after_seq(linked())}"
    assert linked().hash == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", FACT_COLUMNS)
def test_a_change_of_any_column_shows(name: str) -> None:
    changed = replace(FACT, **{name: OTHERS.get(name, "another")})
    assert linked(changed).hash != linked().hash


@pytest.mark.parametrize("name", NULLABLE)
def test_an_absent_value_hashes_unlike_an_empty_one(name: str) -> None:
    absent = replace(FACT, **{name: None})
    empty = replace(FACT, **{name: ""})
    assert len({linked(fact).hash for fact in (FACT, absent, empty)}) == 3


def test_a_change_of_the_place_the_time_or_the_entry_before_shows() -> None:
    hashes = {
        linked().hash,
        linked(seq=6).hash,
        linked(at_ms=8).hash,
        linked(previous=linked().hash).hash,
    }
    assert len(hashes) == 4


def test_a_lost_or_exchanged_line_shows_in_every_hash_after_it() -> None:
    def chain(*references: str) -> list[str]:
        hashes = [GENESIS]
        for seq, reference in enumerate(references, start=1):
            fact = replace(FACT, reference=reference)
            hashes.append(linked(fact, seq=seq, previous=hashes[-1]).hash)
        return hashes[1:]

    whole, lost, exchanged = chain(*"abcd"), chain(*"acd"), chain(*"bacd")
    assert whole[0] == lost[0]
    assert not set(whole[1:]) & set(lost[1:])
    assert not set(whole) & set(exchanged)


def test_the_columns_are_those_of_the_schema_in_its_order(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "ledger.db", create=True)) as db:
        found = [name for (name,) in db.execute("SELECT name FROM pragma_table_info('entries')")]
    assert list(ENTRY_COLUMNS) == found
    assert columns(linked())[2:] == tuple(getattr(FACT, name) for name in FACT_COLUMNS)
