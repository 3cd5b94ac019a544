"""Read from a transaction's entries which codes were charged, and what may have come of it; pure.

A charge is a till's wish to charge one code. An entry is recorded before each prepay, so that a
charge whose answer never arrived is known after a kill, and at every node.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from listener.ledger.model import Entry, Fact, Kind, Transaction, fields_text
from listener.ledger.status import is_charging

_DIGEST_CHARS: Final = 32


@dataclass(slots=True, kw_only=True)
class Charge:
    """A code that was charged, maybe more than once.

    Attributes:
        seq: The entry that recorded it first; its request id is derived from that.
        code: The digest of the code; None where an earlier version has recorded only an answer.
        sent: How often prepay was sent, or was about to be.
        without_effect: How many of these certainly had no effect.
        is_answered: Whether Pockyt has accepted one.
    """

    seq: int
    code: str | None
    sent: int = 0
    without_effect: int = 0
    is_answered: bool = False

    @property
    def may_have_happened(self) -> bool:
        """Whether Pockyt may have charged the code, or may still do so."""
        return self.sent > self.without_effect

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is unknown if the code was charged, since no answer says so."""
        return self.may_have_happened and not self.is_answered


def read_charges(entries: Iterable[Entry]) -> list[Charge]:
    """Return the charges of a transaction, in the order in which they were first recorded."""
    charges: dict[int, Charge] = {}
    for entry in entries:
        fact = entry.fact
        if fact.kind is not Kind.ANSWER or fact.field("call") != "prepay":
            continue
        seq = int(fact.field("chargeSeq") or entry.seq)
        charge = charges.setdefault(seq, Charge(seq=seq, code=fact.field("code")))
        if is_charging(fact):
            charge.sent += 1
            continue
        # Earlier versions have recorded no entry before the call.
        charge.sent = max(charge.sent, 1)
        if fact.field("error") == "refused" or fact.field("sent") == "false":
            charge.without_effect += 1
        elif fact.field("error") is None:
            charge.is_answered = True
    return list(charges.values())


def find_charge(charges: Iterable[Charge], code: str) -> Charge | None:
    """Return the charge of a code that may have happened: charging it again is the same wish."""
    return next((one for one in charges if one.code == code and one.may_have_happened), None)


def digest_of(barcode: str, transaction: Transaction, *, secret: bytes) -> str:
    """Return what the ledger keeps of a customer's code: nobody can guess the code from it."""
    text = f"{transaction.merchant_no}/{transaction.transaction_no}/{barcode}"
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:_DIGEST_CHARS]


def charging_fact(transaction: Transaction, *, code: str, again: Charge | None) -> Fact:
    """Build the fact that prepay is about to be sent; ``again``: for a charge from before."""
    return Fact(
        kind=Kind.ANSWER,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        fields=fields_text(
            {
                "call": "prepay",
                "next": "prepay",
                "code": code,
                "chargeSeq": None if again is None else str(again.seq),
            }
        ),
    )
