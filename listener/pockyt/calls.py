"""The calls to Pockyt: their parameters, how they are written and signed; pure.

Source: Pockyt, "Signing API Calls", "Cancel API" and the page of each call.
"""

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from listener.pockyt import signature
from listener.pockyt.answer import HIDDEN, Answer, PockytUnavailableError, read_answer
from listener.pockyt.signature import Token

_WORTH_A_RETRY: Final = frozenset({"connection", "status"})


class Call(StrEnum):
    """The calls, by their paths under the base URL."""

    ADD = "/app-instore/v3/add"
    CREATE_TRANS_QRCODE = "/app-instore/v3/create-trans-qrcode"
    PREPAY = "/app-instore/v3/prepay"
    CANCEL = "/app-data-search/v3/cancel"
    TRAN_QUERY = "/app-data-search/v3/tran-query"
    REFUND = "/app-data-search/v3/refund"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who calls: a merchant, one of its stores, and the token that signs."""

    merchant_no: str
    store_no: str
    token: Token


class PockytCalls(ABC):
    """Signs each call and reads its answer; a subclass carries the bytes.

    ``request_id`` becomes the header ``Pockyt-Request-ID``; one is made if none is given. Pockyt
    answers a repeat under the same id with its first answer, so a new question needs a new id.
    Amounts are decimal text.

    Raises:
        PockytRefusedError: Pockyt answered anything but 000100.
        PockytUnavailableError: There was no readable answer; see its ``sent``.
        ValueError: Not exactly one of ``transaction_no`` and ``reference`` was given.
    """

    @abstractmethod
    async def exchange(self, call: Call, body: bytes, *, request_id: str) -> bytes:
        """Send a JSON body to Pockyt and return the body of its answer.

        Raises:
            PockytUnavailableError: There was no answer.
        """

    async def add(
        self,
        credentials: Credentials,
        *,
        amount: str,
        currency: str,
        settle_currency: str,
        reference: str,
        timeout_minutes: int | None = None,
        ipn_url: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Open a sale whose code the till will scan. Source: Pockyt, "Add"."""
        fields = {
            "amount": amount,
            "currency": currency,
            "settleCurrency": settle_currency,
            "reference": reference,
            "timeout": _digits(timeout_minutes),
            "ipnUrl": ipn_url,
        }
        return await self._call(Call.ADD, credentials, fields, request_id)

    async def create_trans_qrcode(  # noqa: PLR0913 - the parameters are Pockyt's
        self,
        credentials: Credentials,
        *,
        amount: str,
        currency: str,
        settle_currency: str,
        reference: str,
        vendor: str,
        ipn_url: str,
        need_qrcode: bool = True,
        timeout_minutes: int | None = None,
        description: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Open a sale whose code the customer will scan. Source: "Create Trans QR Code"."""
        fields = {
            "amount": amount,
            "currency": currency,
            "settleCurrency": settle_currency,
            "reference": reference,
            "vendor": vendor,
            "ipnUrl": ipn_url,
            "needQrcode": "true" if need_qrcode else "false",
            "timeout": _digits(timeout_minutes),
            "description": description,
        }
        return await self._call(Call.CREATE_TRANS_QRCODE, credentials, fields, request_id)

    async def prepay(
        self,
        credentials: Credentials,
        *,
        payment_barcode: str,
        transaction_no: str | None = None,
        reference: str | None = None,
        vendor: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Charge the customer by the scanned code. Source: Pockyt, "Prepay"."""
        fields = {
            **_one_of(transaction_no, reference),
            "paymentBarcode": payment_barcode,
            "vendor": vendor,
        }
        return await self._call(Call.PREPAY, credentials, fields, request_id)

    async def cancel(
        self,
        credentials: Credentials,
        *,
        transaction_no: str | None = None,
        reference: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Close an unpaid sale; a paid one is REFUNDED, so ask first. Source: "Cancel API"."""
        fields = _one_of(transaction_no, reference)
        return await self._call(Call.CANCEL, credentials, fields, request_id)

    async def tran_query(
        self,
        credentials: Credentials,
        *,
        transaction_no: str | None = None,
        reference: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Ask for a transaction; repeat once if the first attempt had no answer.

        A time-out is not repeated: the schedule will ask again, and a till is waiting.

        Source: Pockyt, "Tran Query".
        """
        fields = _one_of(transaction_no, reference)
        request_id = request_id or str(uuid.uuid4())
        try:
            return await self._call(Call.TRAN_QUERY, credentials, fields, request_id)
        except PockytUnavailableError as error:
            if error.reason not in _WORTH_A_RETRY:
                raise
        return await self._call(Call.TRAN_QUERY, credentials, fields, request_id)

    async def refund(
        self,
        credentials: Credentials,
        *,
        refund_amount: str,
        currency: str,
        settle_currency: str,
        transaction_no: str | None = None,
        reference: str | None = None,
        refund_reference: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Refund all or part of a payment. Source: Pockyt, "Refund"."""
        fields = {
            **_one_of(transaction_no, reference),
            "refundAmount": refund_amount,
            "currency": currency,
            "settleCurrency": settle_currency,
            "refundReference": refund_reference,
        }
        return await self._call(Call.REFUND, credentials, fields, request_id)

    async def _call(
        self,
        call: Call,
        credentials: Credentials,
        fields: Mapping[str, str | None],
        request_id: str | None,
    ) -> Answer:
        sent = {
            "merchantNo": credentials.merchant_no,
            "storeNo": credentials.store_no,
            **{name: value for name, value in fields.items() if value is not None},
        }
        sent[signature.FIELD] = signature.sign(sent, credentials.token)
        body = json.dumps(sent, ensure_ascii=False).encode()
        said = await self.exchange(call, body, request_id=request_id or str(uuid.uuid4()))
        signed = sent[signature.FIELD]

        def hide(text: str) -> str:
            return credentials.token.hide(text).replace(signed, HIDDEN)

        return read_answer(said, hide=hide)


def _one_of(transaction_no: str | None, reference: str | None) -> dict[str, str | None]:
    if bool(transaction_no) == bool(reference):
        raise ValueError("name a sale by its transaction_no or by its reference, one of the two")
    return {"transactionNo": transaction_no} if transaction_no else {"reference": reference}


def _digits(number: int | None) -> str | None:
    return None if number is None else str(number)
