"""Two merchants with one token: what was signed for one makes no transaction at the other."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace
from pydantic import SecretStr

from listener.errors import SignatureError
from listener.ingest import Ingest
from listener.ledger.scope import Scope, Search
from listener.pockyt import signature
from listener.settings import Merchant
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support import told

TOKEN, OTHER = "9b0c5f62d1e84a7fb3a6c2e07d95f418", "0e7d21c95b3f48a6917bc4d5f8e2a360"
MERCHANTS = {
    "1": Merchant(tokens=(SecretStr(TOKEN),)),
    "2": Merchant(tokens=(SecretStr(OTHER), SecretStr(TOKEN))),
    "3": Merchant(tokens=(SecretStr(OTHER),)),
}
FIELDS = {"transactionNo": "297553638301777927", "status": "success", "amount": "13.00"}


def body(token: str = TOKEN, **more: str) -> bytes:
    fields = FIELDS | more
    signed = signature.Token(token).sign(signature.join(fields).encode()).decode()
    return urlencode({**fields, "verifySign": signed}).encode()


@pytest.fixture(name="ledger")
async def _ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    async with await SqliteLedger.open(tmp_path / "ledger.db", confirm="off") as ledger:
        yield ledger


async def receive(ledger: SqliteLedger, merchant_no: str, content: bytes) -> bool:
    ingest = Ingest(ledger=ledger, merchants=MERCHANTS)
    recorded = await ingest.receive(
        merchant_no=merchant_no, store_no=None, is_json=False, body=content
    )
    return recorded.is_new


async def merchants_of(ledger: SqliteLedger) -> list[str]:
    found = await ledger.read_transactions(Search(scope=Scope()), before=None, limit=9)
    return sorted(one.merchant_no for one in found)


async def test_a_message_captured_at_one_is_a_repeat_at_the_other(ledger: SqliteLedger) -> None:
    assert await receive(ledger, "1", body())
    assert not await receive(ledger, "2", body())
    # Cut anew it is the same message: one name holds two pairs.
    sign = signature.Token(TOKEN).sign(signature.join(FIELDS).encode()).decode()
    recut = {"amount": "13.00&status=success", "transactionNo": FIELDS["transactionNo"]}
    assert not await receive(ledger, "2", urlencode({**recut, "verifySign": sign}).encode())
    assert await merchants_of(ledger) == ["1"]


async def test_another_message_of_the_same_number_is_its_own(ledger: SqliteLedger) -> None:
    assert await receive(ledger, "1", body())
    assert await receive(ledger, "2", body(note="another"))
    assert await merchants_of(ledger) == ["1", "2"]


async def test_a_token_of_its_own_keeps_merchants_apart(ledger: SqliteLedger) -> None:
    assert await receive(ledger, "2", body(OTHER))
    assert not await receive(ledger, "3", body(OTHER))
    with pytest.raises(SignatureError):
        await receive(ledger, "1", body(OTHER))
    assert await merchants_of(ledger) == ["2"]


async def sell(ledger: SqliteLedger, merchant_no: str) -> None:
    """Record a sale of a merchant, and that Pockyt gave it the number of FIELDS."""
    sale = replace(told.sale(), merchant_no=merchant_no)
    seq = (await ledger.record(sale)).seq
    answer = replace(told.bound(seq), merchant_no=merchant_no)
    await ledger.record(replace(answer, transaction_no=FIELDS["transactionNo"]))


def of_sale(token: str = TOKEN) -> bytes:
    """Write the message about it."""
    return body(token, reference=told.REFERENCE, amount=told.AMOUNT, currency=told.CURRENCY)


async def statuses(ledger: SqliteLedger) -> dict[str, str]:
    found = await ledger.read_transaction(FIELDS["transactionNo"], merchant_no=None)
    return {one.merchant_no: one.status for one in found}


async def test_a_message_about_a_sale_is_that_merchants_by_whichever_url_it_came(
    ledger: SqliteLedger,
) -> None:
    await sell(ledger, "1")
    assert await receive(ledger, "2", of_sale())
    assert await statuses(ledger) == {"1": "paid"}
    assert not await receive(ledger, "1", of_sale())


async def test_a_sale_whose_message_came_elsewhere_first_is_paid_by_its_own(
    ledger: SqliteLedger,
) -> None:
    assert await receive(ledger, "2", of_sale())
    await sell(ledger, "1")
    assert await receive(ledger, "1", of_sale())
    assert (await statuses(ledger))["1"] == "paid"
    # What it seemed to be at the other stays: an entry is never taken back.
    assert await merchants_of(ledger) == ["1", "2"]


async def test_what_is_not_signed_with_a_token_of_the_sales_merchant_stays_where_it_came(
    ledger: SqliteLedger,
) -> None:
    await sell(ledger, "1")
    assert await receive(ledger, "2", of_sale(OTHER))
    assert await statuses(ledger) == {"1": "created", "2": "paid"}
