"""Turn rows of the ledger into the nouns of the model, and back."""

from typing import Final

from listener.ledger.model import (
    Ask,
    Cancel,
    CancelState,
    Entry,
    Event,
    Evidence,
    Fact,
    Kind,
    Status,
    Transaction,
    Why,
)
from listener.storage.sqlite.bulk import Row

ENTRY_COLUMNS: Final = (
    "seq, recorded_at, kind, merchant_no, store_no, transaction_no, reference, terminal,"
    " provider_status, says, amount, currency, settle_currency, suspect, as_of, sale_seq,"
    " fingerprint, fields, hash"
)
TRANSACTION_COLUMNS: Final = (
    "first_seq, merchant_no, transaction_no, store_no, terminal, reference, amount, currency,"
    " settle_currency, status, provider_status, evidence, held, state_version, created_at,"
    " updated_at, sale_seq, cancel_state, cancel_requested_at, cancel_resolved_at,"
    " cancel_evidence, ask_why, ask_since, ask_due_at, ask_raise_at, ask_attempt"
)
EVENT_COLUMNS: Final = 'number, stream, "offset", seq, body'


def entry_of(row: Row) -> Entry:
    """Read a row of ENTRY_COLUMNS."""
    return Entry(
        seq=row[0],
        recorded_at_ms=row[1],
        fact=Fact(
            kind=Kind(row[2]),
            merchant_no=row[3],
            store_no=row[4],
            transaction_no=row[5],
            reference=row[6],
            terminal=row[7],
            provider_status=row[8],
            says=Status(row[9]) if row[9] else None,
            amount=row[10],
            currency=row[11],
            settle_currency=row[12],
            suspect=row[13],
            as_of=row[14],
            sale_seq=row[15],
            fingerprint=row[16],
            fields=row[17],
        ),
        hash=row[18],
    )


def event_of(row: Row) -> Event:
    """Read a row of EVENT_COLUMNS."""
    return Event(number=row[0], stream=row[1], offset=row[2], seq=row[3], body=row[4].encode())


def transaction_of(row: Row) -> Transaction:
    """Read a row of TRANSACTION_COLUMNS."""
    return Transaction(
        first_seq=row[0],
        merchant_no=row[1],
        transaction_no=row[2],
        store_no=row[3],
        terminal=row[4],
        reference=row[5],
        amount=row[6],
        currency=row[7],
        settle_currency=row[8],
        status=Status(row[9]),
        provider_status=row[10],
        evidence=Evidence(row[11]),
        held=bool(row[12]),
        state_version=row[13],
        created_at_ms=row[14],
        updated_at_ms=row[15],
        sale_seq=row[16],
        cancel=_cancel_of(row[17:21]),
        ask=_ask_of(row[21:26]),
    )


def transaction_row(transaction: Transaction) -> Row:
    """Write a transaction as the values of TRANSACTION_COLUMNS."""
    t, cancel, ask = transaction, transaction.cancel, transaction.ask
    return (
        t.first_seq,
        t.merchant_no,
        t.transaction_no,
        t.store_no,
        t.terminal,
        t.reference,
        t.amount,
        t.currency,
        t.settle_currency,
        t.status.value,
        t.provider_status,
        t.evidence.value,
        int(t.held),
        t.state_version,
        t.created_at_ms,
        t.updated_at_ms,
        t.sale_seq,
        *(
            (cancel.state, cancel.requested_at_ms, cancel.resolved_at_ms, cancel.evidence)
            if cancel
            else (None, None, None, None)
        ),
        *(
            (ask.why, ask.since_ms, ask.due_at_ms, ask.raise_at_ms, ask.attempt)
            if ask
            else (None, None, None, None, 0)
        ),
    )


def _cancel_of(row: Row) -> Cancel | None:
    state, requested_at, resolved_at, evidence = row
    if state is None:
        return None
    return Cancel(
        state=CancelState(state),
        requested_at_ms=requested_at,
        resolved_at_ms=resolved_at,
        evidence=Evidence(evidence) if evidence else None,
    )


def _ask_of(row: Row) -> Ask | None:
    why, since, due_at, raise_at, attempt = row
    if why is None:
        return None
    return Ask(
        why=Why(why), since_ms=since, due_at_ms=due_at, raise_at_ms=raise_at, attempt=attempt
    )
