"""Answer signed calls as Pockyt would: a pure desk in front of the book.

The HTTP server uses it, and so can a simulation, without a socket. What has to follow an answer
(a notification, a request to the wallet server) is returned, not done.

Source: Pockyt, "Signing API Calls" and the page of each call.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from listener.pockyt import signature
from listener.pockyt.calls import Call
from listener.pockyt.signature import Token
from listener.sandbox.book import Book, RefusalError, RetCode, Sale, Word
from listener.sandbox.fields import VENDORS, need, read_order, read_url
from listener.sandbox.results import json_body, named, refund_result, sale_result

REPEATS_KEPT_MAX: Final = 10_000
_MESSAGES: Final = MappingProxyType(
    {
        Call.ADD: "add success",
        Call.CREATE_TRANS_QRCODE: "create success",
        Call.PREPAY: "pay success",
        Call.CANCEL: "cancel success ",
        Call.TRAN_QUERY: "query success ",
        Call.REFUND: "refund success ",
    }
)


class Follow(StrEnum):
    """What has to follow an answer: tell the merchant, or the wallet server."""

    NOTIFY = "notify"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskAnswer:
    """An answer (a JSON body, always under HTTP 200) and what follows from it, in order."""

    body: bytes
    ret_code: str
    sale: Sale | None
    follows: tuple[tuple[Follow, Sale], ...]


class Desk:
    """Checks the signature, does what the call says, and builds the answer."""

    def __init__(
        self, book: Book, *, merchants: Mapping[str, Token], checkout_url: str = ""
    ) -> None:
        """Open the desk; ``checkout_url`` with a transaction number makes a qrcodeUrl."""
        self._book = book
        self._merchants = dict(merchants)
        self._checkout_url = checkout_url
        self._repeats: OrderedDict[tuple[str, Call, str], DeskAnswer] = OrderedDict()
        self._acts: Mapping[Call, _Act] = {
            Call.ADD: self._add,
            Call.CREATE_TRANS_QRCODE: self._create_trans_qrcode,
            Call.PREPAY: self._prepay,
            Call.CANCEL: self._cancel,
            Call.TRAN_QUERY: self._tran_query,
            Call.REFUND: self._refund,
        }

    def answer(
        self,
        call: Call,
        fields: Mapping[str, str],
        *,
        now_seconds: float,
        request_id: str | None = None,
    ) -> DeskAnswer:
        """Answer a call; a repeat under the same request id gets the first answer again."""
        expired = tuple([(Follow.NOTIFY, sale) for sale in self._book.expire(now_seconds)])
        merchant_no = fields.get("merchantNo", "")
        token = self._merchants.get(merchant_no)
        if token is None or not signature.verify(fields, [token]):
            body = json_body({"ret_code": RetCode.SYSTEM, "ret_msg": "data error : verifySign"})
            return DeskAnswer(body=body, ret_code=RetCode.SYSTEM, sale=None, follows=expired)
        key = (merchant_no, call, request_id or "")
        if request_id and (first := self._repeats.get(key)):
            return DeskAnswer(
                body=first.body, ret_code=first.ret_code, sale=first.sale, follows=expired
            )
        outcome = self._act(call, fields, now_seconds, expired)
        if request_id:
            self._repeats[key] = outcome
            if len(self._repeats) > REPEATS_KEPT_MAX:
                self._repeats.popitem(last=False)
        return outcome

    def find(self, fields: Mapping[str, str]) -> Sale:
        """Find the sale that a call names.

        Raises:
            RefusalError: It names none, or one that does not exist.
        """
        transaction_no, reference = fields.get("transactionNo"), fields.get("reference")
        if not transaction_no and not reference:
            raise RefusalError(RetCode.MISSING, "transactionNo or reference is required")
        return self._book.find(
            fields.get("merchantNo", ""), transaction_no=transaction_no, reference=reference
        )

    def _act(
        self,
        call: Call,
        fields: Mapping[str, str],
        now_seconds: float,
        expired: tuple[tuple[Follow, Sale], ...],
    ) -> DeskAnswer:
        try:
            need(fields, "storeNo")
            done = self._acts[call](fields, now_seconds)
        except RefusalError as refusal:
            # Pockyt's samples spell the message of a refusal in both ways.
            body = json_body({"ret_code": refusal.code, "retMsg": refusal.message})
            return DeskAnswer(body=body, ret_code=refusal.code, sale=None, follows=expired)
        answer = {"result": done.result, "ret_code": RetCode.ACCEPTED, "ret_msg": _MESSAGES[call]}
        follows = expired if done.follow is None else (*expired, (done.follow, done.sale))
        return DeskAnswer(
            body=json_body(answer), ret_code=RetCode.ACCEPTED, sale=done.sale, follows=follows
        )

    def _add(self, fields: Mapping[str, str], now_seconds: float) -> "_Done":
        order = read_order(fields, vendor=None, ipn_url=read_url(fields, required=False))
        sale = self._book.open(order, now_seconds=now_seconds)
        return _Done(sale=sale, result=sale_result(sale))

    def _create_trans_qrcode(self, fields: Mapping[str, str], now_seconds: float) -> "_Done":
        vendor = need(fields, "vendor")
        if vendor not in VENDORS:
            raise RefusalError(RetCode.BAD_VALUE, "vendor")
        order = read_order(fields, vendor=vendor, ipn_url=read_url(fields, required=True))
        sale = self._book.open(order, now_seconds=now_seconds)
        checkout = f"{self._checkout_url}{sale.transaction_no}"
        result = {
            **named(sale),
            "amount": f"{sale.amount}",
            "timeout": str(order.timeout_minutes),
            "deepLink": checkout,
            "qrcodeUrl": checkout if fields.get("needQrcode", "true") == "true" else None,
        }
        return _Done(sale=sale, result=result)

    def _prepay(self, fields: Mapping[str, str], now_seconds: float) -> "_Done":
        barcode = need(fields, "paymentBarcode")
        sale = self._book.pay(self.find(fields), now_seconds=now_seconds, barcode=barcode)
        follow = None if sale.word is Word.PENDING else Follow.NOTIFY
        return _Done(sale=sale, result=sale_result(sale), follow=follow)

    def _cancel(self, fields: Mapping[str, str], _now_seconds: float) -> "_Done":
        before = self.find(fields)
        sale = self._book.cancel(before)
        follow = None
        if sale.word is not before.word:
            follow = Follow.ABANDON
        elif self._book.shown(sale) is not self._book.shown(before):
            follow = Follow.NOTIFY
        result = {
            # A number, as Pockyt sends it only here.
            "amount": float(sale.amount),
            "currency": sale.order.currency,
            "reference": sale.order.reference,
            "transactionNo": sale.transaction_no,
            "status": Word.CLOSED,
        }
        return _Done(sale=sale, result=result, follow=follow)

    def _tran_query(self, fields: Mapping[str, str], _now_seconds: float) -> "_Done":
        of_refund = self._book.refund_named(fields["merchantNo"], fields.get("transactionNo", ""))
        if of_refund is not None:
            sale, refund = of_refund
            result = {
                **named(sale),
                "transactionNo": refund.transaction_no,
                "amount": f"{refund.amount}",
                "status": Word.SUCCESS,
                "transactionType": "refund",
            }
            return _Done(sale=sale, result=result)
        sale = self.find(fields)
        word = self._book.shown(sale)
        result = {
            **named(sale),
            "amount": f"{sale.amount}",
            "status": word,
            "transactionType": "payment",
        }
        if sale.refunds and word is Word.SUCCESS:
            result["refundInfo"] = [refund_result(refund, sale) for refund in sale.refunds]
        return _Done(sale=sale, result=result)

    def _refund(self, fields: Mapping[str, str], _now_seconds: float) -> "_Done":
        amount = need(fields, "refundAmount")
        sale = self.find(fields)
        if need(fields, "currency") != sale.order.currency:
            raise RefusalError(RetCode.MISMATCH, "currency does not match")
        refund = self._book.refund(sale, amount, reference=fields.get("refundReference"))
        result = {
            **named(sale),
            "amount": f"{sale.amount}",
            "refundAmount": f"{refund.amount}",
            "refundTransactionNo": refund.transaction_no,
            "refundReference": refund.reference,
            "status": Word.SUCCESS,
        }
        return _Done(sale=sale, result=result)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What a call has done."""

    sale: Sale
    result: Mapping[str, object]
    follow: Follow | None = None


_Act = Callable[[Mapping[str, str], float], _Done]
