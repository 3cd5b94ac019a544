"""Turn rows of the ledger into its nouns, and back; the same for every back-end."""

from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from listener.ledger.chain import ENTRY_COLUMNS, FACT_COLUMNS
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

# A row as a driver takes and gives it; its types are those of schema.sql.
Row = tuple[Any, ...]

EVENT_COLUMNS: Final = ("number", "stream", '"offset"', "seq", "body")

# Each column of a transaction, and the field that it holds: of itself, its cancel, its ask.
_OWN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "first_seq": "first_seq",
        "merchant_no": "merchant_no",
        "transaction_no": "transaction_no",
        "store_no": "store_no",
        "terminal": "terminal",
        "reference": "reference",
        "amount": "amount",
        "currency": "currency",
        "settle_currency": "settle_currency",
        "status": "status",
        "provider_status": "provider_status",
        "evidence": "evidence",
        "held": "held",
        "state_version": "state_version",
        "created_at": "created_at_ms",
        "updated_at": "updated_at_ms",
        "sale_seq": "sale_seq",
    }
)
_CANCEL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cancel_state": "state",
        "cancel_requested_at": "requested_at_ms",
        "cancel_resolved_at": "resolved_at_ms",
        "cancel_evidence": "evidence",
    }
)
_ASK: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ask_why": "why",
        "ask_since": "since_ms",
        "ask_due_at": "due_at_ms",
        "ask_raise_at": "raise_at_ms",
        "ask_attempt": "attempt",
    }
)
TRANSACTION_COLUMNS: Final = (*_OWN, *_CANCEL, *_ASK)

_ENTRY_END: Final = len(ENTRY_COLUMNS) - 1
_CANCEL_AT: Final = len(_OWN)
_ASK_AT: Final = len(_OWN) + len(_CANCEL)
_NO_CANCEL: Final = (None,) * len(_CANCEL)
_NO_ASK: Final = (None, None, None, None, 0)

_own_values = attrgetter(*_OWN.values())
_cancel_values = attrgetter(*_CANCEL.values())
_ask_values = attrgetter(*_ASK.values())


def entry_of(row: Row) -> Entry:
    """Read a row of ENTRY_COLUMNS; what comes after them is left alone."""
    said = dict(zip(FACT_COLUMNS, row[2:_ENTRY_END], strict=True))
    said["kind"] = Kind(said["kind"])
    said["says"] = Status(said["says"]) if said["says"] else None
    return Entry(seq=row[0], recorded_at_ms=row[1], fact=Fact(**said), hash=row[_ENTRY_END])


def event_of(row: Row) -> Event:
    """Read a row of EVENT_COLUMNS."""
    return Event(number=row[0], stream=row[1], offset=row[2], seq=row[3], body=row[4].encode())


def transaction_of(row: Row) -> Transaction:
    """Read a row of TRANSACTION_COLUMNS."""
    own = dict(zip(_OWN.values(), row[:_CANCEL_AT], strict=True))
    own["status"] = Status(own["status"])
    own["evidence"] = Evidence(own["evidence"])
    own["held"] = bool(own["held"])
    return Transaction(
        **own, cancel=_cancel_of(row[_CANCEL_AT:_ASK_AT]), ask=_ask_of(row[_ASK_AT:])
    )


def transaction_row(transaction: Transaction) -> Row:
    """Write a transaction as the values of TRANSACTION_COLUMNS."""
    cancel, ask = transaction.cancel, transaction.ask
    return (
        *_own_values(transaction),
        *(_cancel_values(cancel) if cancel else _NO_CANCEL),
        *(_ask_values(ask) if ask else _NO_ASK),
    )


def _cancel_of(row: Row) -> Cancel | None:
    values = dict(zip(_CANCEL.values(), row, strict=True))
    if values["state"] is None:
        return None
    values["state"] = CancelState(values["state"])
    values["evidence"] = Evidence(values["evidence"]) if values["evidence"] else None
    return Cancel(**values)


def _ask_of(row: Row) -> Ask | None:
    values = dict(zip(_ASK.values(), row, strict=True))
    if values["why"] is None:
        return None
    values["why"] = Why(values["why"])
    return Ask(**values)
