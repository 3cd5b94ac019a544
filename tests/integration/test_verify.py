"""A ledger that was changed, cut or damaged says so, with the first entry that shows it."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from listener.errors import DamagedError, LedgerError
from listener.ledger.chain import GENESIS, digest
from listener.ledger.model import Fact
from listener.ledger.schedule import Confirm
from listener.storage.checks import EventPlaces
from listener.storage.rows import PLAIN_COLUMNS, TRANSACTION_COLUMNS
from listener.storage.sqlite import replay
from listener.storage.sqlite.backup import backup
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.replay import ROWS_AT_ONCE, settle
from listener.storage.sqlite.verify import EVERY_ENTRY, TOLD_EVERY, Check, verify
from tests.support import told
from tests.support.stored import Clock, bare, behind, bound, numbered, sold, url_of, without_number


async def told_to(
    path: Path, *, confirm: Confirm = "suspicious", clock: Clock | None = None
) -> None:
    """Make a ledger that has some of everything."""
    async with await SqliteLedger.open(path, confirm=confirm, clock=clock or Clock()) as ledger:
        sale = await ledger.record(sold("r1"))  # 1
        await ledger.record(bound("r1", 1, sale_seq=sale.seq))  # 2
        await ledger.record(numbered(2))  # 3
        await ledger.record(numbered(2))
        await ledger.record(numbered(1, "closed"))  # 4
        await ledger.record(replace(told.cancel_request(), transaction_no="2"))  # 5
        await ledger.record(without_number("a"))  # 6
        await ledger.record(numbered(3, store_no=None))  # 7
        await ledger.record(sold("r2"))  # 8
        await ledger.record(replace(numbered(4), suspect="ambiguous"))  # 9


@pytest.fixture(name="path")
async def _path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    await told_to(path)
    return path


def test_a_sound_ledger_passes(path: Path) -> None:
    found = verify(url_of(path))
    assert (found.entries, found.events, found.transactions) == (9, 6, 4)
    assert found.head.repeats == 1


async def test_the_end_of_a_cancel_that_pockyt_never_answered_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with await SqliteLedger.open(path, clock=Clock()) as ledger:
        sale = await ledger.record(sold("r1"))
        wish = replace(told.cancel_request(), transaction_no="", sale_seq=sale.seq)
        await ledger.record(replace(wish, reference="r1"))
    verify(url_of(path))
    with behind(path) as db:
        db.execute(
            "UPDATE sales SET cancel_state = 'confirmed', cancel_resolved_at = 1,"
            " cancel_evidence = 'query'"
        )
    with pytest.raises(DamagedError, match="at entry 2: the state of the sale"):
        verify(url_of(path))


def test_an_empty_ledger_passes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    asyncio.run(make(path))
    assert verify(url_of(path)).entries == 0


async def make(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()


def test_where_there_is_no_ledger_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        verify(url_of(tmp_path / "none.db"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("confirm", ["off", "suspicious", "always"])
async def test_any_setting_of_confirm_passes(tmp_path: Path, confirm: Confirm) -> None:
    path = tmp_path / "ledger.db"
    await told_to(path, confirm=confirm)
    assert verify(url_of(path)).entries == 9


async def test_a_setting_that_was_changed_between_two_entries_passes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    alarm = replace(told.alarm(), transaction_no="1")
    # Only who asks Pockyt can find that it is silent: no one setting makes this story.
    story: Sequence[tuple[Confirm, Fact]] = (
        ("off", numbered(1, "disputed")),
        ("off", alarm),
        ("suspicious", numbered(1, "disputed", mark="again")),
        ("always", alarm),
        ("always", numbered(1)),
    )
    for confirm, fact in story:
        async with await SqliteLedger.open(path, confirm=confirm) as ledger:
            await ledger.record(fact)
    found = verify(url_of(path))
    assert (found.entries, found.events) == (5, 3)


async def test_a_ledger_is_verified_while_it_is_served(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(300)))
        checking = asyncio.create_task(asyncio.to_thread(verify, url_of(path)))
        more = 300
        while not checking.done():
            await ledger.record(numbered(more))
            more += 1
        assert 300 <= checking.result().entries <= more


async def test_a_restored_backup_passes_with_the_events_of_its_past(
    path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    backup(url_of(path), copy)
    async with await SqliteLedger.open(copy) as ledger:
        await ledger.record(numbered(1, "success"))
        await ledger.record(numbered(5))
    assert verify(url_of(copy)).entries == 11


async def test_progress_rises_to_its_total(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(TOLD_EVERY)))
    steps: list[tuple[int, int]] = []
    verify(url_of(path), progress=lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps)
    assert [done for done, _ in steps] == [1_000, 2_000, 3_000, 3_000]
    assert {total for _, total in steps} == {3_000}


# Another transaction like number 3, with its first entry at a seq.
ANOTHER: Final = (
    f"INSERT INTO transactions ({', '.join(PLAIN_COLUMNS)})"
    f" SELECT {{seq}}, merchant_no, '0', {', '.join(PLAIN_COLUMNS[3:])}"
    " FROM transactions WHERE transaction_no = '3'"
)
# Without the first column of its group, none of these is read.
IDLE: Final = frozenset(
    {
        *("cancel_requested_at", "cancel_resolved_at", "cancel_evidence"),
        *("ask_since", "ask_due_at", "ask_raise_at", "ask_attempt"),
    }
)

# What is changed, the first entry that shows it, and some of what is said.
DAMAGE: Final = {
    "a field": ("UPDATE entries SET fields = '{}' WHERE seq = 3", 3, "not what was recorded"),
    "an amount": ("UPDATE entries SET amount = '99' WHERE seq = 4", 4, "not what was recorded"),
    "a kind": ("UPDATE entries SET kind = 'rumour' WHERE seq = 4", 4, "not what was recorded"),
    "a time": ("UPDATE entries SET recorded_at = 0 WHERE seq = 2", 2, "not what was recorded"),
    "a hash": ("UPDATE entries SET hash = 'x' WHERE seq = 5", 5, "not what was recorded"),
    "a lost entry": ("DELETE FROM entries WHERE seq = 5", 5, "entry 5 is missing"),
    "the first entry": ("DELETE FROM entries WHERE seq = 1", 1, "entry 1 is missing"),
    "the last entry": ("DELETE FROM entries WHERE seq = 9", 9, "the last entry is 8"),
    "an added entry": (
        (
            "INSERT INTO entries SELECT 10, recorded_at, kind, merchant_no, store_no, '9',"
            " reference, terminal, provider_status, says, amount, currency, settle_currency,"
            " suspect, as_of, sale_seq, fingerprint, fields, hash FROM entries WHERE seq = 9"
        ),
        10,
        "entry 10 is not what was recorded",
    ),
    "two that changed places": (
        (
            "UPDATE entries SET seq = -3 WHERE seq = 3; UPDATE entries SET seq = 3 WHERE seq = 4;"
            " UPDATE entries SET seq = 4 WHERE seq = -3"
        ),
        3,
        "entry 3",
    ),
    "the head's hash": ("UPDATE ledger SET hash = 'x'", 9, "does not have the hash"),
    "the head's seq": ("UPDATE ledger SET seq = 12", 10, "the head is at entry 12"),
    "no head": ("DELETE FROM ledger", None, "head is missing"),
    "a lost event": ("DELETE FROM events WHERE number = 2", 4, "an event before it is missing"),
    "the last event": ("DELETE FROM events WHERE number = 6", None, "heads of the streams"),
    "an event's body": (
        "UPDATE events SET body = replace(body, '13.00', '1.00') WHERE seq = 4",
        4,
        "event does not follow",
    ),
    "an event that is not JSON": (
        "UPDATE events SET body = '' WHERE seq = 4",
        4,
        "event does not follow",
    ),
    "an event's stream": (
        "UPDATE events SET stream = 'x', \"offset\" = 1 WHERE number = 6",
        None,
        "heads of the streams",
    ),
    "an event's flag": (
        "UPDATE events SET cancelled = 0 WHERE seq = 4",
        4,
        "event does not follow",
    ),
    "an event's entry": ("UPDATE events SET seq = 6 WHERE seq = 5", 5, "event does not follow"),
    "an event of no transaction": (
        (
            "INSERT INTO events VALUES (7, '200043/303660', 6, 100, 0, '{}');"
            " UPDATE ledger SET number = 7; UPDATE streams SET head = 6 WHERE stream LIKE '%660'"
        ),
        100,
        "belongs to no transaction",
    ),
    "an offset": (
        'UPDATE events SET "offset" = 7 WHERE number = 3',
        4,
        "has a hole before it",
    ),
    "the order of events": (
        "UPDATE events SET seq = 3 WHERE number = 4",
        3,
        "out of order",
    ),
    "a stream's head": ("UPDATE streams SET head = 9", None, "heads of the streams"),
    "the number of events": ("UPDATE ledger SET number = 9", None, "heads of the streams"),
    "a status": (
        "UPDATE transactions SET status = 'paid' WHERE transaction_no = '1'",
        4,
        "not what its entries add up to",
    ),
    "a status that is none": (
        "UPDATE transactions SET status = 'rumour' WHERE transaction_no = '1'",
        2,
        "transaction 1 is not what",
    ),
    "a cancel": (
        "UPDATE transactions SET cancel_state = NULL WHERE transaction_no = '2'",
        5,
        "not what its entries add up to",
    ),
    "a version": (
        "UPDATE transactions SET state_version = 9 WHERE transaction_no = '3'",
        7,
        "not what its entries add up to",
    ),
    "a lost transaction": ("DELETE FROM transactions WHERE first_seq = 2", 2, "1 is missing"),
    "the last transaction": ("DELETE FROM transactions WHERE first_seq = 9", 9, "4 is missing"),
    "a transaction that never was": (
        "UPDATE transactions SET transaction_no = '0' WHERE first_seq = 3",
        3,
        "has no entries",
    ),
    "a last one that never was": (
        "UPDATE transactions SET transaction_no = '5' WHERE first_seq = 3",
        3,
        "2 is missing",
    ),
    "the number of transactions": (
        "UPDATE ledger SET transactions = 9",
        None,
        "number of transactions",
    ),
    "a count of repeats": ("UPDATE repeats SET count = 2", None, "number of repeats"),
    "a repeat of nothing": ("UPDATE repeats SET seq = 1", 1, "counted as a repeat"),
    "a lost sale": ("DELETE FROM sales WHERE seq = 8", 8, "not among the sales"),
    "a sale that is none": ("UPDATE sales SET seq = 7 WHERE seq = 8", 8, "not among the sales"),
    "a sale too many": (
        "INSERT INTO sales (seq, merchant_no, store_no, reference) VALUES (7, '200043', '', 'r7')",
        7,
        "is not one",
    ),
    "a sale's number": (
        "UPDATE sales SET transaction_no = '2' WHERE seq = 1",
        2,
        "the state of the sale",
    ),
    "a sale without its number": (
        "UPDATE sales SET transaction_no = NULL WHERE seq = 1",
        2,
        "the state of the sale",
    ),
    "a cancel of a sale that nobody wished": (
        "UPDATE sales SET cancel_state = 'confirmed', cancel_requested_at = 1 WHERE seq = 8",
        8,
        "the state of the sale",
    ),
    "a reference that is not free": (
        "UPDATE sales SET is_refused = 1 WHERE seq = 8",
        8,
        "the state of the sale",
    ),
    "a cancel that was not sent": (
        "UPDATE sales SET cancel_sent = 1 WHERE seq = 8",
        8,
        "the state of the sale",
    ),
    "the store of a sale": (
        "UPDATE sales SET store_no = '300014' WHERE seq = 8",
        8,
        "the state of the sale",
    ),
    "when a sale is looked for": (
        "UPDATE sales SET ask_due_at = NULL WHERE seq = 8",
        8,
        "the state of the sale",
    ),
    "the body of a plain event": (
        "UPDATE events SET body = replace(body, '13.00', '1.00') WHERE seq = 7",
        7,
        "event does not follow",
    ),
    "the flag of a plain event": (
        "UPDATE events SET cancelled = 1 WHERE seq = 7",
        7,
        "event does not follow",
    ),
    "the stream of a plain event": (
        (
            "UPDATE events SET stream = 'x', \"offset\" = 1 WHERE seq = 7;"
            " UPDATE streams SET stream = 'x' WHERE stream LIKE '%/-'"
        ),
        7,
        "event does not follow",
    ),
    "the entry of a plain event": (
        "UPDATE events SET seq = 6 WHERE seq = 7",
        7,
        "event does not follow",
    ),
    "a plain event at the next entry": (
        "UPDATE events SET seq = 8 WHERE seq = 7",
        7,
        "event does not follow",
    ),
    "a plain transaction too many": (ANOTHER.format(seq=6), 6, "has no entries"),
    "one after the end": (ANOTHER.format(seq=100), 100, "has no entries"),
    "one before the start": (ANOTHER.format(seq=-3), -3, "has no entries"),
    "an entry that is no text": (
        "UPDATE entries SET currency = CAST(x'ff' AS TEXT) WHERE seq = 4",
        4,
        "entry 4 cannot be read",
    ),
    "an entry before one that is no text": (
        (
            "UPDATE entries SET currency = CAST(x'ff' AS TEXT) WHERE seq = 4;"
            " UPDATE entries SET amount = '99' WHERE seq = 3"
        ),
        3,
        "entry 3 is not what was recorded",
    ),
    "an entry after an event": (
        "DELETE FROM events WHERE number = 2; UPDATE entries SET amount = '99' WHERE seq = 7",
        7,
        "entry 7 is not what was recorded",
    ),
    "the first of two": (
        (
            "UPDATE transactions SET status = 'paid' WHERE transaction_no = '1';"
            " UPDATE transactions SET state_version = 9 WHERE transaction_no = '2'"
        ),
        4,
        "transaction 1",
    ),
    "the first of two, the other way round": (
        (
            "UPDATE transactions SET state_version = 9 WHERE transaction_no = '1';"
            " UPDATE transactions SET store_no = NULL WHERE transaction_no = '4';"
            " DELETE FROM transactions WHERE transaction_no = '2'"
        ),
        3,
        "transaction 2",
    ),
}


@pytest.mark.parametrize("at_once", [1, ROWS_AT_ONCE])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_with_the_first_entry_that_shows_it(
    path: Path, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "ROWS_AT_ONCE", at_once)
    damage, seq, text = DAMAGE[name]
    with behind(path) as db:
        db.executescript(damage)
    with pytest.raises(DamagedError, match=text) as raised:
        verify(url_of(path))
    assert raised.value.seq == seq


@pytest.mark.parametrize("column", sorted({*TRANSACTION_COLUMNS} - IDLE))
def test_any_column_of_a_plain_transaction_is_compared(path: Path, column: str) -> None:
    with behind(path) as db:
        db.execute(f"UPDATE transactions SET {column} = '70' WHERE transaction_no = '3'")
    with pytest.raises(DamagedError, match="transaction 3") as raised:
        verify(url_of(path))
    assert raised.value.seq == 7


@pytest.mark.parametrize("at_once", [1, 4, ROWS_AT_ONCE])
def test_only_a_plain_transaction_needs_no_second_look(
    path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "ROWS_AT_ONCE", at_once)
    with closing(bare(path)) as db:
        check = Check(db, lambda _done, _total: None)
        settled = settle(db, check.entries(), check.events(EventPlaces()))
    assert [seq for seq, is_settled in enumerate(settled) if is_settled] == [7]


async def test_a_transaction_that_its_second_entry_left_plain_passes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with await SqliteLedger.open(path, clock=Clock()) as ledger:
        for mark in ("a", "b"):
            await ledger.record(numbered(1, mark=mark))
    found = verify(url_of(path))
    assert (found.entries, found.events, found.transactions) == (2, 1, 1)


def test_an_entry_that_none_can_be_is_found_although_the_chain_was_made_anew(path: Path) -> None:
    with behind(path) as db:
        db.execute("UPDATE entries SET kind = 'rumour' WHERE seq = 4")
        previous = GENESIS
        for row in db.execute(EVERY_ENTRY).fetchall():
            previous = digest(previous, row[:-1])
            db.execute("UPDATE entries SET hash = ? WHERE seq = ?", (previous, row[0]))
        db.execute("UPDATE ledger SET hash = ?", (previous,))
    with pytest.raises(DamagedError, match="entry 4 is not what was recorded"):
        verify(url_of(path))


def test_an_index_that_does_not_fit_its_table_is_found(path: Path) -> None:
    with closing(bare(path)) as db:
        where = "SELECT rootpage FROM sqlite_schema WHERE name = 'transactions_by_reference'"
        (page,) = db.execute(where).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    at = content.index(b"r3", (page - 1) * size, page * size)
    content[at : at + 2] = b"r9"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="transactions_by_reference"):
        verify(url_of(path))


def test_a_damaged_page_is_found(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = content.index(b"autoReference")
    content[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        verify(url_of(path))


def test_a_file_that_is_not_a_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("not a database at all, and longer than the header of one would be" * 9)
    with pytest.raises(LedgerError, match=r"cannot be read: .*; stop the listener, keep all its"):
        verify(url_of(path))
