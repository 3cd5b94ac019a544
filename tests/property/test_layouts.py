"""Whatever was sent before, a body is read as by a listener that has just started."""

import os
import random
from typing import cast
from unittest.mock import patch

from pydantic import SecretStr

from listener.errors import ListenerError, SignatureError
from listener.ingest import Ingest
from listener.ledger.model import Fact
from listener.ledger.promise import Ledger
from listener.pockyt.layout import Layouts
from listener.settings import Merchant
from tests.support.service import FIELDS, MERCHANT_NO, STORE_NO, TOKEN_TEXT, signed

BODIES = 200 * int(os.environ.get("TEST_EXAMPLES", "20"))
VALUES = ("13.00", "closed", "", "a=b", "a b", "%", "&x=1", "\0", "汉", "x" * 300, "0")
NAMES = ("transactionNo", "note", "a", "B", "refundAmount", "transactionType", "a b", "a&b", "")
BYTES = b"&=%+\r\n 0aZ\xff\0"


def ingest() -> Ingest:
    merchant = Merchant(tokens=(SecretStr(TOKEN_TEXT),), stores=(STORE_NO,))
    # Reading asks the ledger nothing.
    return Ingest(ledger=cast(Ledger, None), merchants={MERCHANT_NO: merchant})


def read(of: Ingest, body: bytes) -> Fact | str:
    try:
        return of.read(merchant_no=MERCHANT_NO, store_no=STORE_NO, is_json=False, body=body)
    except ListenerError as error:
        return repr(error)


def made_up(chance: random.Random) -> bytes:
    """Make up a form: other names, orders and values, and now and then a byte that is wrong."""
    pairs = [*FIELDS.items()]
    if chance.random() < 0.3:
        pairs.append((chance.choice(NAMES), chance.choice(VALUES)))
    if chance.random() < 0.3:
        chance.shuffle(pairs)
    fields = dict(pairs)
    if chance.random() < 0.5:
        fields[chance.choice([*fields])] = chance.choice(VALUES)
    body = signed(fields)
    for _ in range(chance.choice((0, 0, 1, 2))):
        at = chance.randrange(len(body))
        body = body[:at] + bytes([chance.choice(BYTES)]) + body[at + chance.randint(0, 1) :]
    return body


def test_a_body_is_read_as_by_a_listener_that_has_just_started() -> None:
    chance = random.Random(1)
    taught = ingest()
    layouts = Layouts.read
    known: list[bytes] = []

    def counted(self: Layouts, body: bytes) -> object:
        found = layouts(self, body)
        if found is not None:
            known.append(body)
        return found

    facts = 0
    for _ in range(BODIES):
        body = made_up(chance)
        with patch.object(Layouts, "read", counted):
            found = read(taught, body)
        assert found == read(ingest(), body), body
        facts += isinstance(found, Fact)
    # Layouts that are never known, or always, show nothing.
    assert BODIES > facts > BODIES / 4
    assert facts > len(known) > BODIES / 10


def test_a_forged_form_teaches_nothing_and_what_was_learned_helps_no_forger() -> None:
    taught = ingest()
    good = signed(FIELDS)
    with patch.object(Layouts, "learn", autospec=True) as learned:
        assert read(taught, good.replace(b"13.00", b"12.00")) == repr(signature_error())
        learned.assert_not_called()
    assert isinstance(read(taught, good), Fact)
    assert read(taught, good.replace(b"13.00", b"12.00")) == repr(signature_error())


def signature_error() -> SignatureError:
    return SignatureError("verifySign is missing or wrong")
