"""Pockyt's side of every sale: a pure state machine, without I/O and without a clock.

The caller passes the time (Unix seconds); with the same seed and the same calls, it does the same.
``Book.truth`` is what a listener must come to believe.

Source: Pockyt, "Add", "Prepay", "Cancel API", "Tran Query" and "Refund".
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal

SALES_MAX: Final = 10_000
REFUNDS_MAX: Final = 100
TIMEOUT_MINUTES: Final = 120
TIMEOUT_MINUTES_MAX: Final = 24 * 60
NUMBER_DIGITS: Final = 18
# A customer's code that the wallet leaves open, and one that it refuses; any other code pays.
PENDING_BARCODE: Final = "280000000000000001"
FAILING_BARCODE: Final = "280000000000000002"

_AMOUNT: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?")

RefundShows = Literal["success", "closed"]


class Word(StrEnum):
    """Pockyt's status words that a sale of the sandbox can have."""

    INIT = "init"
    PENDING = "pending"
    SUCCESS = "success"
    CLOSED = "closed"
    FAILED = "failed"


class RetCode(StrEnum):
    """Pockyt's ret_codes that the sandbox answers with."""

    ACCEPTED = "000100"
    SYSTEM = "000000"
    MISSING = "000020"
    NO_RECORD = "000021"
    MISMATCH = "000022"
    BAD_VALUE = "000023"
    BAD_STATUS = "000040"


OPEN: Final = frozenset({Word.INIT, Word.PENDING})


class RefusalError(Exception):
    """The stand-in refuses a call as Pockyt would, with a ret_code and a message."""

    def __init__(self, code: RetCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code} {message}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money that went back to a customer."""

    transaction_no: str
    amount: Decimal
    reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaleRequest:
    """What a merchant asks for when it opens a sale. ``vendor`` is None for /add."""

    merchant_no: str
    store_no: str
    reference: str
    amount: str
    currency: str
    settle_currency: str
    vendor: str | None = None
    ipn_url: str | None = None
    store_admin_no: str | None = None
    timeout_minutes: int = TIMEOUT_MINUTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """One sale and its state. ``undone`` means that /cancel refunded it after it was paid."""

    transaction_no: str
    order: SaleRequest
    amount: Decimal
    word: Word
    opened_seconds: float
    paid_seconds: float | None = None
    refunds: tuple[Refund, ...] = ()
    undone: bool = False

    @property
    def ends_seconds(self) -> float:
        """When it closes by itself, if nobody pays."""
        return self.opened_seconds + self.order.timeout_minutes * 60

    @property
    def refunded(self) -> Decimal:
        """How much went back."""
        return sum((refund.amount for refund in self.refunds), Decimal(0))


class Book:
    """The sales of all merchants, up to ``sales_max``; the oldest finished ones make room."""

    def __init__(
        self, *, seed: int = 0, refund_shows: RefundShows = "success", sales_max: int = SALES_MAX
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable numbers are the purpose
        self._refund_shows: RefundShows = refund_shows
        self._sales_max = sales_max
        self._sales: dict[str, Sale] = {}
        self._numbers: dict[tuple[str, str], str] = {}
        self._sale_of_refund: dict[str, str] = {}

    def __iter__(self) -> Iterator[Sale]:
        """Go through the sales, oldest first."""
        return iter(list(self._sales.values()))

    def __len__(self) -> int:
        return len(self._sales)

    def get(self, transaction_no: str) -> Sale | None:
        """Return a sale by its number; None if there is none."""
        return self._sales.get(transaction_no)

    def find(
        self,
        merchant_no: str,
        *,
        transaction_no: str | None = None,
        reference: str | None = None,
    ) -> Sale:
        """Find a merchant's sale by its number or its reference, whichever is given.

        Raises:
            RefusalError: There is none (000021), or both are given and differ (000022).
        """
        by_reference = self._numbers.get((merchant_no, reference)) if reference else None
        if transaction_no and reference and by_reference != transaction_no:
            raise RefusalError(RetCode.MISMATCH, "transactionNo and reference do not match")
        sale = self._sales.get(transaction_no or by_reference or "")
        if sale is None or sale.order.merchant_no != merchant_no:
            raise RefusalError(RetCode.NO_RECORD, "no such record")
        return sale

    def refund_named(self, merchant_no: str, transaction_no: str) -> tuple[Sale, Refund] | None:
        """Find a refund by its own transaction number, and the sale it belongs to."""
        sale = self._sales.get(self._sale_of_refund.get(transaction_no, ""))
        if sale is None or sale.order.merchant_no != merchant_no:
            return None
        return sale, next(r for r in sale.refunds if r.transaction_no == transaction_no)

    def open(self, order: SaleRequest, *, now_seconds: float) -> Sale:
        """Open a sale: ``init`` for /add, ``pending`` where the customer gets a code to scan.

        Raises:
            RefusalError: The reference is taken or the amount is wrong (000023), or the book is
                full of open sales (000000).
        """
        amount = read_amount(order.amount)
        if (order.merchant_no, order.reference) in self._numbers:
            raise RefusalError(RetCode.BAD_VALUE, "reference already exists")
        self._make_room()
        sale = Sale(
            transaction_no=self._number(),
            order=order,
            amount=amount,
            word=Word.INIT if order.vendor is None else Word.PENDING,
            opened_seconds=now_seconds,
        )
        self._numbers[order.merchant_no, order.reference] = sale.transaction_no
        return self._keep(sale)

    def pay(self, sale: Sale, *, now_seconds: float, barcode: str | None = None) -> Sale:
        """Pay as the customer does, by scanning a code or showing one.

        Raises:
            RefusalError: The sale is not open any more (000040).
        """
        sale = self._sales[sale.transaction_no]
        if sale.word not in OPEN:
            raise RefusalError(RetCode.BAD_STATUS, "transaction status error")
        if barcode == PENDING_BARCODE:
            return self._keep(replace(sale, word=Word.PENDING))
        if barcode == FAILING_BARCODE:
            return self._keep(replace(sale, word=Word.FAILED))
        return self._keep(replace(sale, word=Word.SUCCESS, paid_seconds=now_seconds))

    def cancel(self, sale: Sale) -> Sale:
        """Cancel a sale: close it if it is unpaid, give the money back if it is paid.

        Cancelling again changes nothing.

        Raises:
            RefusalError: It failed, or was paid and then refunded by other means (000040).

        Source: Pockyt, "Cancel API".
        """
        if sale.undone or sale.word is Word.CLOSED:
            return sale
        if sale.word in OPEN:
            return self._keep(replace(sale, word=Word.CLOSED))
        rest = sale.amount - sale.refunded
        if sale.word is Word.FAILED or not rest:
            raise RefusalError(RetCode.BAD_STATUS, "transaction status error")
        return self._keep(replace(self._give_back(sale, rest, None), undone=True))

    def pay_late(self, sale: Sale, *, now_seconds: float) -> Sale | None:
        """Record a payment that arrives on a closed sale: the wallet had taken the money before.

        Returns:
            The sale, or None if it is gone, or not closed.
        """
        known = self._sales.get(sale.transaction_no)
        if known is None or known.word is not Word.CLOSED:
            return None
        return self._keep(replace(known, word=Word.SUCCESS, paid_seconds=now_seconds))

    def refund(self, sale: Sale, amount_text: str, *, reference: str | None = None) -> Refund:
        """Refund all or a part of the money.

        Raises:
            RefusalError: It is not paid, or that is more than is left (000040).
        """
        amount = read_amount(amount_text)
        if sale.word is not Word.SUCCESS or len(sale.refunds) >= REFUNDS_MAX:
            raise RefusalError(RetCode.BAD_STATUS, "transaction status error")
        if amount > sale.amount - sale.refunded:
            raise RefusalError(RetCode.BAD_STATUS, "balance insufficient")
        return self._keep(self._give_back(sale, amount, reference)).refunds[-1]

    def expire(self, now_seconds: float) -> tuple[Sale, ...]:
        """Close the open sales whose time is up, and return them; nothing else closes them."""
        over = [s for s in self if s.word in OPEN and s.ends_seconds <= now_seconds]
        return tuple([self._keep(replace(sale, word=Word.CLOSED)) for sale in over])

    def shown(self, sale: Sale) -> Word:
        """Return the word that tran-query shows; after a refund by /cancel a setting decides it."""
        return Word.CLOSED if sale.undone and self._refund_shows == "closed" else sale.word

    def truth(self, sale: Sale) -> str:
        """Return what is true of a sale, in the listener's own words."""
        if sale.word is Word.SUCCESS:
            return "refunded" if sale.refunded == sale.amount else "paid"
        return {
            Word.INIT: "created",
            Word.PENDING: "pending",
            Word.CLOSED: "cancelled",
            Word.FAILED: "failed",
        }[sale.word]

    def _give_back(self, sale: Sale, amount: Decimal, reference: str | None) -> Sale:
        refund = Refund(transaction_no=self._number(), amount=amount, reference=reference)
        self._sale_of_refund[refund.transaction_no] = sale.transaction_no
        return replace(sale, refunds=(*sale.refunds, refund))

    def _keep(self, sale: Sale) -> Sale:
        self._sales[sale.transaction_no] = sale
        return sale

    def _number(self) -> str:
        while True:
            number = str(self._random.randrange(10 ** (NUMBER_DIGITS - 1), 10**NUMBER_DIGITS))
            if number not in self._sales and number not in self._sale_of_refund:
                return number

    def _make_room(self) -> None:
        if len(self._sales) < self._sales_max:
            return
        oldest = next((sale for sale in self if sale.word not in OPEN), None)
        if oldest is None:
            raise RefusalError(RetCode.SYSTEM, "too many open sales")
        del self._sales[oldest.transaction_no]
        del self._numbers[oldest.order.merchant_no, oldest.order.reference]
        for refund in oldest.refunds:
            del self._sale_of_refund[refund.transaction_no]


def read_amount(text: str) -> Decimal:
    """Read an amount of money above zero, with two decimals at most.

    Raises:
        RefusalError: It is not one (000023).
    """
    if not _AMOUNT.fullmatch(text) or not Decimal(text):
        raise RefusalError(RetCode.BAD_VALUE, "wrong amount")
    return Decimal(text).quantize(Decimal("0.01"))
