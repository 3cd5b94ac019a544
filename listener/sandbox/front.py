"""Apply the faults of a call around what the desk does; pure, for HTTP and simulations alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from listener.pockyt.calls import Call
from listener.sandbox.book import Book, RefusalError, RetCode, Sale, Word
from listener.sandbox.desk import Desk, Follow
from listener.sandbox.faults import Fault, Place, Script
from listener.sandbox.steps import OnStep, SandboxStep, say_nothing

HTML_ERROR: Final = "<html><body><h1>502 Bad Gateway</h1></body></html>"

_PLACES: Final[Mapping[Call, Place]] = MappingProxyType(
    {
        Call.ADD: Place.SALE,
        Call.CREATE_TRANS_QRCODE: Place.SALE,
        Call.PREPAY: Place.PAY,
        Call.CANCEL: Place.CANCEL,
        Call.TRAN_QUERY: Place.QUERY,
    }
)
_UNHEARD: Final = "-unheard"

# What has to follow, for which sale, and whether the end of a cancel is to be relayed.
OnFollow = Callable[[Follow, Sale, bool], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The answer to a call, and what becomes of it: at most one of these is true."""

    body: bytes
    hangs: bool
    fails: bool
    is_html: bool


class Front:
    """Everything that Pockyt does at once; what follows is passed to ``on_follow``, in order.

    ``now_seconds`` returns the time (Unix seconds). With ``notify_on_cancel`` false, no closed
    sale is ever notified.
    """

    def __init__(
        self,
        *,
        book: Book,
        desk: Desk,
        script: Script,
        now_seconds: Callable[[], float],
        on_follow: OnFollow,
        notify_on_cancel: bool = True,
        on_step: OnStep = say_nothing,
    ) -> None:
        self._book = book
        self._desk = desk
        self._script = script
        self._now_seconds = now_seconds
        self._on_follow = on_follow
        self._notify_on_cancel = notify_on_cancel
        self._on_step = on_step

    def serve(self, call: Call, fields: Mapping[str, str], *, request_id: str) -> Served:
        """Do a call, unless a fault prevents it, and return what becomes of its answer."""
        self.expire()
        place = _PLACES.get(call)
        faults = self._script.strike(place) if place else frozenset()
        for fault in sorted(faults):
            self._on_step(SandboxStep.FAULT, {"fault": fault})
        if Fault.CANCEL_PAID_MEANWHILE in faults:
            self._pay_meanwhile(fields)
        body = b""
        if not any(fault.endswith(_UNHEARD) for fault in faults):
            relay = Fault.CANCEL_NOT_NOTIFIED not in faults
            body = self._do(call, fields, request_id, relay=relay)
        effects = {fault.removesuffix(_UNHEARD).rsplit("-", 1)[1] for fault in faults}
        hangs, fails = "timeout" in effects, "5xx" in effects
        return Served(
            body=body,
            hangs=hangs,
            fails=fails and not hangs,
            is_html="html" in effects and not hangs and not fails,
        )

    def pay(self, transaction_no: str) -> Sale:
        """Pay a sale as the customer does.

        Raises:
            RefusalError: There is no such sale (000021), or it is not open any more (000040).
        """
        self.expire()
        sale = self._book.get(transaction_no)
        if sale is None:
            raise RefusalError(RetCode.NO_RECORD, "no such record")
        return self._paid(self._book.pay(sale, now_seconds=self._now_seconds()))

    def pay_late(self, sale: Sale) -> None:
        """Record a payment that arrives on a closed sale: the wallet had taken the money before."""
        paid = self._book.pay_late(sale, now_seconds=self._now_seconds())
        if paid is not None:
            self._paid(paid)

    def expire(self) -> None:
        """Close the sales whose time is up."""
        for sale in self._book.expire(self._now_seconds()):
            self._on_step(SandboxStep.EXPIRED, {"transactionNo": sale.transaction_no})
            self._tell(Follow.NOTIFY, sale, relay=True)

    def _do(self, call: Call, fields: Mapping[str, str], request_id: str, *, relay: bool) -> bytes:
        outcome = self._desk.answer(
            call, fields, now_seconds=self._now_seconds(), request_id=request_id
        )
        detail = {
            "call": call.rsplit("/", 1)[1],
            "merchantNo": fields.get("merchantNo", ""),
            "transactionNo": outcome.sale.transaction_no if outcome.sale else "",
            "retCode": str(outcome.ret_code),
        }
        self._on_step(SandboxStep.CALLED, detail)
        for follow, sale in outcome.follows:
            self._tell(follow, sale, relay=relay)
        return outcome.body

    def _tell(self, follow: Follow, sale: Sale, *, relay: bool) -> None:
        relay = relay and self._notify_on_cancel
        if follow is Follow.ABANDON or relay or self._book.shown(sale) is not Word.CLOSED:
            self._on_follow(follow, sale, relay)

    def _pay_meanwhile(self, fields: Mapping[str, str]) -> None:
        try:
            self.pay(self._desk.find(fields).transaction_no)
        except RefusalError:
            # Nothing to pay: the cancel itself will say why.
            return

    def _paid(self, sale: Sale) -> Sale:
        self._on_step(SandboxStep.PAID, {"transactionNo": sale.transaction_no})
        self._tell(Follow.NOTIFY, sale, relay=True)
        return sale
