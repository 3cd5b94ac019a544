"""Build what is told to a ledger about one transaction, for the tests of the core."""

from collections.abc import Iterable
from typing import Final

from listener.ledger.belief import Belief
from listener.ledger.model import Alarm, Entry, Fact, Kind, Status, fields_text
from listener.ledger.status import read_word
from listener.ledger.summary import Summary

MERCHANT: Final = "200043"
STORE: Final = "303660"
NUMBER: Final = "297553638301777927"
REFERENCE: Final = "test20200101307"
AMOUNT: Final = "13.00"
CURRENCY: Final = "USD"
START_MS: Final = 1_792_000_000_000
SECOND_MS: Final = 1_000


def notification(
    word: str | None,
    *,
    amount: str | None = AMOUNT,
    currency: str | None = CURRENCY,
    suspect: str | None = None,
    store_no: str | None = STORE,
    reference: str | None = REFERENCE,
    mark: str = "",
) -> Fact:
    """Build a signed notification; another ``mark`` makes another message with the same word."""
    return Fact(
        kind=Kind.NOTIFICATION,
        merchant_no=MERCHANT,
        store_no=store_no,
        transaction_no=NUMBER,
        reference=reference,
        provider_status=word,
        says=read_word(word),
        amount=amount,
        currency=currency,
        suspect=suspect,
        fingerprint=f"{word} {amount} {currency} {reference} {suspect} {mark}",
    )


def answer(word: str | None, *, as_of: int | None = None, amount: str | None = AMOUNT) -> Fact:
    """Build Pockyt's answer to a call; the one to /cancel has an ``as_of``."""
    return _told(Kind.ANSWER, word, as_of=as_of, amount=amount)


def query(
    word: str | None,
    *,
    as_of: int | None,
    amount: str | None = AMOUNT,
    currency: str | None = CURRENCY,
    reference: str | None = REFERENCE,
    refunds: str | None = None,
    says: Status | None = None,
) -> Fact:
    """Build tran-query's answer; ``says`` is given if its list of refunds decides it."""
    return _told(
        Kind.QUERY,
        word,
        as_of=as_of,
        amount=amount,
        currency=currency,
        reference=reference,
        refunds=refunds,
        says=says,
    )


def sale(*, amount: str = AMOUNT, timeout: str | None = None, terminal: str = "T-42") -> Fact:
    """Build a sale, recorded before Pockyt has given it a number."""
    return Fact(
        kind=Kind.SALE,
        merchant_no=MERCHANT,
        store_no=STORE,
        reference=REFERENCE,
        terminal=terminal,
        amount=amount,
        currency=CURRENCY,
        settle_currency="USD",
        fields=fields_text({"timeout": timeout}),
    )


def bound(sale_seq: int, word: str = "init") -> Fact:
    """Build the answer to /add, which gives the sale its transaction number."""
    return _told(Kind.ANSWER, word, sale_seq=sale_seq)


def cancel_request(*, refund_if_paid: bool = False, terminal: str | None = "T-42") -> Fact:
    """Build a cashier's cancel."""
    wish = fields_text({"refundIfPaid": "true" if refund_if_paid else "false"})
    return Fact(
        kind=Kind.CANCEL_REQUEST,
        merchant_no=MERCHANT,
        transaction_no=NUMBER,
        terminal=terminal,
        fields=wish,
    )


def alarm(what: Alarm = Alarm.UNRESOLVED) -> Fact:
    """Build an alarm."""
    return Fact(
        kind=Kind.ALARM,
        merchant_no=MERCHANT,
        transaction_no=NUMBER,
        fields=fields_text({"alarm": what}),
    )


def decision(status: Status, *, as_of: int | None = None) -> Fact:
    """Build an operator's decision; ``as_of`` is the seq up to which he has seen."""
    fields = fields_text({"by": "Ada", "reason": "seen on the wallet's own page"})
    return Fact(
        kind=Kind.DECISION,
        merchant_no=MERCHANT,
        transaction_no=NUMBER,
        says=status,
        as_of=as_of,
        fields=fields,
    )


def entries(facts: Iterable[Fact], *, step_ms: int = SECOND_MS) -> list[Entry]:
    """Number facts 1, 2, 3 …, one every ``step_ms``."""
    return [
        Entry(seq=seq, recorded_at_ms=START_MS + seq * step_ms, fact=fact)
        for seq, fact in enumerate(facts, start=1)
    ]


def _told(
    kind: Kind,
    word: str | None,
    *,
    as_of: int | None = None,
    sale_seq: int | None = None,
    amount: str | None = AMOUNT,
    currency: str | None = CURRENCY,
    reference: str | None = REFERENCE,
    refunds: str | None = None,
    says: Status | None = None,
) -> Fact:
    return Fact(
        kind=kind,
        merchant_no=MERCHANT,
        transaction_no=NUMBER,
        reference=reference,
        provider_status=word,
        says=says or read_word(word),
        amount=amount,
        currency=currency,
        as_of=as_of,
        sale_seq=sale_seq,
        fields=fields_text({"refundInfo": refunds}),
    )


def apart(linked: Iterable[Entry]) -> tuple[list[Entry], Entry | None]:
    """Return the facts without the sale, which has no transaction number of its own."""
    told = list(linked)
    found = next((entry for entry in told if entry.fact.kind is Kind.SALE), None)
    return [entry for entry in told if entry.fact.kind is not Kind.SALE], found


def believe(told: Iterable[Entry], *, sale: Entry | None = None) -> Belief:
    """Return what entries add up to, given the sale that they are bound to."""
    return Summary.of(told, sale=sale, is_bound=sale is not None).believe()
