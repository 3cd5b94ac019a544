"""Whatever was sent before, a body is read as by a listener that has just started."""

import json
import os
import random
from typing import cast
from unittest.mock import patch
from urllib.parse import parse_qsl

from pydantic import SecretStr

from listener.errors import ListenerError, SignatureError
from listener.ingest import Ingest
from listener.ledger.model import Fact
from listener.ledger.promise import Ledger
from listener.pockyt import layout
from listener.pockyt.layout import Layouts
from listener.pockyt.signature import Token
from listener.settings import Merchant
from tests.support.service import FIELDS, MERCHANT_NO, STORE_NO, TOKEN, TOKEN_TEXT, signed

BODIES = 200 * int(os.environ.get("TEST_EXAMPLES", "20"))
VALUES = ("13.00", "closed", "", "a=b", "a b", "%", "&x=1", "\0", "汉", "x" * 300, "0")
NAMES = ("transactionNo", "note", "a", "B", "refundAmount", "transactionType", "a b", "a&b", "")
BYTES = b"&=%+\r\n 0aZ\xff\0"


OTHER_NO, OTHER_TOKEN = "200044", "0b8ac5d3d4b1e8f6a1c7e2f9b3d4c5a6"


def ingest() -> Ingest:
    def merchant(*tokens: str) -> Merchant:
        return Merchant(tokens=tuple(map(SecretStr, tokens)), stores=(STORE_NO,))

    merchants = {
        MERCHANT_NO: merchant("1" * 32, TOKEN_TEXT),
        OTHER_NO: merchant(OTHER_TOKEN, "2" * 32),
    }
    # Reading asks the ledger nothing.
    return Ingest(ledger=cast(Ledger, None), merchants=merchants)


def read(of: Ingest, body: bytes, *, merchant_no: str = MERCHANT_NO) -> Fact | str:
    try:
        fact, _ = of.read(merchant_no=merchant_no, store_no=STORE_NO, is_json=False, body=body)
    except ListenerError as error:
        return repr(error)
    return fact


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
    body = signed(fields, token=Token(OTHER_TOKEN) if chance.random() < 0.3 else TOKEN)
    odd = chance.random()
    if odd < 0.1:
        body += b"&more="
    elif odd < 0.2:
        body = body[:-32] + body[-32:].upper()
    elif odd < 0.25:
        body = json.dumps(dict(parse_qsl(body.decode(), keep_blank_values=True))).encode()
    for _ in range(chance.choice((0, 0, 1, 2))):
        at = chance.randrange(len(body))
        body = body[:at] + bytes([chance.choice(BYTES)]) + body[at + chance.randint(0, 1) :]
    return body


def test_a_body_is_read_as_by_a_listener_that_has_just_started() -> None:
    chance = random.Random(1)
    with patch.object(layout, "LEARN_SECONDS", 0.0):
        check(chance, ingest())


def check(chance: random.Random, taught: Ingest) -> None:
    layouts = Layouts.read
    known: list[bytes] = []

    def counted(self: Layouts, body: bytes) -> object:
        found = layouts(self, body)
        if found is not None:
            known.append(body)
        return found

    facts = 0
    for _ in range(BODIES):
        body, number = made_up(chance), chance.choice((MERCHANT_NO, MERCHANT_NO, OTHER_NO))
        with patch.object(Layouts, "read", counted):
            found = read(taught, body, merchant_no=number)
        assert found == read(ingest(), body, merchant_no=number), body
        facts += isinstance(found, Fact)
    # Layouts that are never known, or always, show nothing.
    assert BODIES > facts > BODIES / 8
    assert BODIES > len(known) > BODIES / 20


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
