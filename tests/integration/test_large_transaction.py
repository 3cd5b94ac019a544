"""A transaction of very many entries: one more costs little, and so does a page of them."""

import hashlib
import json
import os
import time
from pathlib import Path

from listener.keys import Role
from listener.ledger.model import Fact, Kind
from listener.ledger.status import read_word
from listener.storage.sqlite.commit import commit
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from tests.support.service import FIELDS, MERCHANT_NO, STORE_NO, Serving, serving

# `make simulate` makes it 100,000.
ENTRIES = 1_000 * int(os.environ.get("TEST_EXAMPLES", "25"))
BATCH = 5_000
PAGE = 500
# Of what takes some milliseconds; to join 25,000 entries for each of 20 takes 15 seconds.
SECONDS_MAX = 3.0


def notification(number: int) -> Fact:
    text = json.dumps({**FIELDS, "note": str(number)})
    return Fact(
        kind=Kind.NOTIFICATION,
        merchant_no=MERCHANT_NO,
        store_no=STORE_NO,
        transaction_no=FIELDS["transactionNo"],
        reference=FIELDS["reference"],
        provider_status=FIELDS["status"],
        says=read_word(FIELDS["status"]),
        amount=FIELDS["amount"],
        currency=FIELDS["currency"],
        settle_currency=FIELDS["settleCurrency"],
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        fields=text,
    )


async def fill(path: Path) -> None:
    """Record all of them in a few large commits, none of them synced."""
    async with await SqliteLedger.open(path, confirm="off") as ledger:
        epoch = ledger.epoch
    db = connect(path, create=False)
    db.execute("PRAGMA synchronous = OFF")
    for first in range(0, ENTRIES, BATCH):
        facts = [notification(number) for number in range(first, first + BATCH)]
        db.execute("BEGIN IMMEDIATE")
        commit(db, facts, epoch=epoch, now_ms=1_760_000_000_000, confirm="off")
        db.execute("COMMIT")
    db.close()


async def timed_page(service: Serving, key: str, query: str) -> dict[str, object]:
    started = time.perf_counter()
    number = FIELDS["transactionNo"]
    status, body = await service.get(f"/v1/transactions/{number}?{query}", key)
    assert time.perf_counter() - started < SECONDS_MAX
    assert status == 200
    assert isinstance(body, dict)
    return body


async def test_a_transaction_of_very_many_entries_is_one_like_another(tmp_path: Path) -> None:
    await fill(tmp_path / "ledger.db")
    async with serving(tmp_path / "ledger.db", confirm="off") as service:
        started = time.perf_counter()
        for number in range(20):
            assert await service.notify({"note": f"more {number}"}) == (200, "success")
        assert time.perf_counter() - started < SECONDS_MAX
        key = service.key(Role.LEDGER)
        first = await timed_page(service, key, "")
        seqs = [entry["seq"] for entry in first["entries"]]  # type: ignore[attr-defined]
        assert seqs == list(range(1, PAGE + 1))
        assert first["nextAfter"] == PAGE
        last = await timed_page(service, key, f"after={ENTRIES}&limit=20")
        assert len(last["entries"]) == 20  # type: ignore[arg-type]
        assert last["nextAfter"] is None
        edge = await timed_page(service, key, f"after={ENTRIES}&limit=19")
        assert edge["nextAfter"] == ENTRIES + 19
        (transaction,) = await service.ledger.read_transaction(
            FIELDS["transactionNo"], merchant_no=None
        )
        started = time.perf_counter()
        ours = await service.ledger.read_transaction_entries(transaction, notifications=False)
        assert time.perf_counter() - started < SECONDS_MAX
        assert ours == []
