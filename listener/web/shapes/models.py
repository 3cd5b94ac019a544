"""The nouns of the JSON API: what programs read from the ledger, and how it is written.

OpenAPI is generated from these models, and the export writes with them. Every member is always
present; null is what is not known.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Self

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from listener.ledger import model, results
from listener.ledger.model import CancelState, Evidence, Kind, Status, rfc3339
from listener.ledger.status import refunded_by
from listener.pos.codes import PROBLEM_TYPES

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

Amount = Annotated[str, Field(description="Decimal text, as it was sent.", examples=["13.00"])]
Currency = Annotated[str, Field(description="ISO 4217.", examples=["USD"])]
Hash = Annotated[str, Field(description="SHA-256 in hex; covers the hash of the entry before.")]
MerchantNo = Annotated[str, Field(description="Pockyt's merchant.", examples=["200043"])]
StoreNo = Annotated[str, Field(description="Pockyt's store.", examples=["303660"])]
Reference = Annotated[
    str, Field(description="The shop's own number of the sale.", examples=["test20200101307"])
]
Seq = Annotated[
    int, Field(ge=0, description="The place in the ledger: 1, 2, 3 … without a hole.", examples=[7])
]
Stream = Annotated[
    str, Field(description="`<merchantNo>/<storeNo>`, or `*`.", examples=["200043/303660"])
]
Terminal = Annotated[str, Field(description="The till.", examples=["T-42"])]
Time = Annotated[
    str,
    Field(
        description="RFC 3339, UTC, to the millisecond.",
        examples=["2026-11-23T10:11:12.345Z"],
        json_schema_extra={"format": "date-time"},
    ),
]
TransactionNo = Annotated[
    str, Field(description="Pockyt's number; opaque text.", examples=["297553638301777927"])
]
Word = Annotated[str, Field(description="Pockyt's own word, untouched.", examples=["closed"])]


class Model(BaseModel):
    """The base of all models of the API: camelCase on the wire, frozen, nulls written."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    def encode(self) -> bytes:
        """Write it as JSON."""
        return self.model_dump_json(by_alias=True).encode()


def reply(body: "Model | bytes", *, status: int = 200) -> web.Response:
    """Build the answer with a model, or with JSON that is already written."""
    text = body if isinstance(body, bytes) else body.encode()
    return web.Response(status=status, body=text, content_type=JSON)


class Cancel(Model):
    """The newest cancel that was requested, and how it ended."""

    state: CancelState
    requested_at: Time
    resolved_at: Time | None
    evidence: Evidence | None = Field(description="What the end rests on; null while it is open.")

    @classmethod
    def of(cls, cancel: model.Cancel) -> Self:
        """Describe a cancel."""
        return cls(
            state=cancel.state,
            requested_at=rfc3339(cancel.requested_at_ms),
            resolved_at=_time(cancel.resolved_at_ms),
            evidence=cancel.evidence,
        )


class Transaction(Model):
    """The state of a transaction: what all of its entries add up to.

    Its identity is `merchantNo` and `transactionNo` together.
    """

    transaction_no: TransactionNo
    reference: Reference | None
    merchant_no: MerchantNo
    store_no: StoreNo | None
    terminal: Terminal | None
    amount: Amount | None
    currency: Currency | None
    settle_currency: Currency | None
    status: Status
    provider_status: Word | None
    state_version: int = Field(ge=0, description="Grows by one with each event of it.")
    held: bool = Field(
        description="Whether a notification is held: it is signed, but not believed alone."
    )
    created_at: Time
    updated_at: Time
    cancel: Cancel | None

    @classmethod
    def of(cls, transaction: model.Transaction) -> Self:
        """Describe a transaction."""
        return cls.model_validate(_members(transaction))


class Deliveries(Model):
    """How often a notification was delivered; 1 for other entries."""

    count: int = Field(ge=1)
    first: Time
    last: Time


class Entry(Model):
    """One line of the ledger, never changed. Its deliveries are counted beside it."""

    seq: Seq
    kind: Kind
    merchant_no: MerchantNo
    store_no: StoreNo | None
    transaction_no: TransactionNo | None = Field(description="Null where the message has none.")
    reference: Reference | None
    provider_status: Word | None
    amount: Amount | None
    currency: Currency | None
    held: bool = Field(description="Signed, but not believed alone: it counts for nothing.")
    held_reason: str | None = Field(
        description="Why it is held: a word.", examples=["amount_differs"]
    )
    as_of: Seq | None = Field(
        description="The ledger's seq when a query or a cancel was sent, or an operator looked."
    )
    recorded_at: Time
    deliveries: Deliveries
    fields: dict[str, str] = Field(
        description="Everything that arrived, without verifySign, and our own words about a call."
    )
    hash: Hash
    refunded: Amount | None = Field(
        description="How much of the payment has gone back by then, if Pockyt's answer says so."
    )

    @classmethod
    def of(cls, line: results.ReadEntry) -> Self:
        """Describe an entry as it is read back."""
        entry, fact = line.entry, line.entry.fact
        refunded = refunded_by(fact)
        return cls(
            seq=entry.seq,
            kind=fact.kind,
            merchant_no=fact.merchant_no,
            store_no=fact.store_no,
            transaction_no=fact.transaction_no or None,
            reference=fact.reference,
            provider_status=fact.provider_status,
            amount=fact.amount,
            currency=fact.currency,
            held=line.held is not None,
            held_reason=line.held,
            as_of=fact.as_of,
            recorded_at=rfc3339(entry.recorded_at_ms),
            deliveries=Deliveries(
                count=line.deliveries.count,
                first=rfc3339(line.deliveries.first_at_ms),
                last=rfc3339(line.deliveries.last_at_ms),
            ),
            fields=orjson.loads(fact.fields),
            hash=entry.hash,
            refunded=None if refunded is None else f"{refunded:f}",
        )


class TransactionDetail(Transaction):
    """A transaction and its entries in order, its sale's included."""

    entries: list[Entry]
    next_after: int | None = Field(
        description="Where there are more entries, the seq to ask after; null where there are none."
    )

    @classmethod
    def with_entries(
        cls, transaction: model.Transaction, lines: Sequence[results.ReadEntry], *, has_more: bool
    ) -> Self:
        """Describe a transaction and a page of its entries."""
        entries = [Entry.of(line) for line in lines]
        next_after = entries[-1].seq if has_more else None
        members = {**_members(transaction), "entries": entries, "next_after": next_after}
        return cls.model_validate(members)


class TransactionsPage(Model):
    """Transactions, newest first."""

    data: list[Transaction]
    next_cursor: str | None = Field(
        description="Returns the next page, with the same filters; null on the last page."
    )


class EntriesPage(Model):
    """Entries in seq order, after the requested seq."""

    epoch: str = Field(description="Names the ledger; a restored backup gets a new one.")
    head: Seq = Field(
        description="The newest entry's seq. A page with fewer entries than its limit holds all"
        " up to here that the key may see: go on after the head."
    )
    data: list[Entry]


class Counts(Model):
    """What the ledger holds, as far as the key may see it."""

    entries: int = Field(ge=0)
    transactions: int = Field(ge=0)
    events: int = Field(ge=0, description="What tills were told.")
    deliveries: int = Field(ge=0, description="The sum of all entries' `deliveries.count`.")
    repeats: int = Field(ge=0, description="Deliveries beyond the first.")


class LedgerHead(Model):
    """The end of the ledger. Whoever keeps `seq` and `hash` can prove later what came before."""

    epoch: str = Field(description="Names the ledger; a restored backup gets a new one.")
    seq: Seq
    hash: Hash
    counts: Counts

    @classmethod
    def of(cls, head: results.Head, counts: results.Totals) -> Self:
        """Describe the end of the ledger, and what of it may be seen."""
        shown = Counts(
            entries=counts.entries,
            transactions=counts.transactions,
            events=counts.events,
            deliveries=counts.entries + counts.repeats,
            repeats=counts.repeats,
        )
        return cls(epoch=head.epoch, seq=head.seq, hash=head.hash, counts=shown)


class Problem(Model):
    """What went wrong, as RFC 9457 defines it; further members say more."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        description=f"Names the problem; the listener's own begin with `{PROBLEM_TYPES}`.",
        examples=[f"{PROBLEM_TYPES}bad-parameter"],
    )
    title: str = Field(examples=["Bad request"])
    status: int = Field(ge=400, le=599, examples=[400])
    code: str = Field(description="A word for programs.", examples=["bad-parameter"])
    detail: str = Field(
        description="A sentence for people: what to do.",
        examples=["limit must be a whole number from 1 to 500"],
    )
    retry: bool = Field(
        description="False: the same request is refused until a person changes something. True:"
        " it may pass later.",
        examples=[False],
    )


def _members(transaction: model.Transaction) -> dict[str, object]:
    """Return the members of a transaction, alone or with its entries."""
    return {
        "transaction_no": transaction.transaction_no,
        "reference": transaction.reference,
        "merchant_no": transaction.merchant_no,
        "store_no": transaction.store_no,
        "terminal": transaction.terminal,
        "amount": transaction.amount,
        "currency": transaction.currency,
        "settle_currency": transaction.settle_currency,
        "status": transaction.status,
        "provider_status": transaction.provider_status,
        "state_version": transaction.state_version,
        "held": transaction.held,
        "created_at": rfc3339(transaction.created_at_ms),
        "updated_at": rfc3339(transaction.updated_at_ms),
        "cancel": Cancel.of(transaction.cancel) if transaction.cancel else None,
    }


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
