"""What must hold of a listener that has become quiet, as far as one can see from outside."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from listener.pockyt.calls import Call
from listener.sandbox.book import Sale, Word
from tests.outside.listener import Found, Json, Till
from tests.outside.people import Press, Wishes
from tests.outside.pockyt import Called, PockytOfTruth

PAYABLE: Final = frozenset({"created", "pending", "unknown"})
# How a till is told that a cancel ended, or that nobody knows how.
ENDS: Final = frozenset(
    f"transaction.{word}" for word in ("cancelled", "refunded", "paid", "failed", "unresolved")
)
# Within so long a cancel has ended or was raised, while the listener lives.
RAISED_MS: Final = 62_000
# After a start, silence from before is not raised for so long.
GRACE_MS: Final = 16_000
# A call that left before a decision may arrive so much later.
UNDER_WAY_MS: Final = 500
SHOWN_ALIKE: Final = (
    *("transactionNo", "reference", "merchantNo", "storeNo", "terminal", "status"),
    *("providerStatus", "stateVersion", "amount", "currency"),
)


def find_wrong(
    found: Found,
    pockyt: PockytOfTruth,
    wishes: Mapping[str, Wishes],
    tills: Sequence[Till],
    *,
    down: Sequence[tuple[int, int]],
) -> list[str]:
    """Return what does not hold; each with the sale that it is about."""
    wrong = [*pockyt.kept.wrong, *_notifications(found, pockyt), *_stream(found, tills)]
    entries: dict[str, list[Json]] = {}
    for entry in found.entries:
        entries.setdefault(entry["reference"] or "", []).append(entry)
        if entry["transactionNo"] in found.transactions:
            reference = found.transactions[entry["transactionNo"]]["reference"]
            if reference != entry["reference"]:
                entries.setdefault(reference, []).append(entry)
    of = {one["reference"]: one for one in found.transactions.values()}
    for reference, wished in wishes.items():
        lines = entries.get(reference, [])
        sale = pockyt.book.get(pockyt.number(reference) or "")
        one = of.get(reference, found.sales.get(reference))
        calls = [call for call in pockyt.kept.calls if call.reference == reference]
        found_wrong = [
            *_status(sale, one, lines, pockyt),
            *_cancel(one, wished, lines),
            *_silence(one, found, down),
            *_calls(calls, wished, lines),
            *_refund(sale, wished),
        ]
        wrong += [f"{reference}: {what}" for what in found_wrong]
    return wrong


def is_stale(transaction: Json, pockyt: PockytOfTruth) -> bool:
    """Return whether a sale is believed open only since its notification was lost."""
    number = transaction["transactionNo"]
    sale = pockyt.book.get(number or "")
    if sale is None or transaction["status"] not in PAYABLE or transaction["cancel"] is not None:
        return False
    return number in pockyt.kept.lost and pockyt.book.truth(sale) not in PAYABLE


def _notifications(found: Found, pockyt: PockytOfTruth) -> Iterator[str]:
    """What was acknowledged is there, once; and nothing is there that was not brought."""
    there = Counter(
        frozenset(entry["fields"].items())
        for entry in found.entries
        if entry["kind"] == "notification"
    )
    for fields in pockyt.kept.acknowledged:
        if there[fields] != 1:
            yield f"acknowledged, and {there[fields]} times in the ledger: {sorted(fields)}"
    for fields, times in there.items():
        if times != 1 or fields not in pockyt.kept.brought:
            yield f"{times} times in the ledger, and not brought so: {sorted(fields)}"


def _stream(found: Found, tills: Sequence[Till]) -> Iterator[str]:
    """The API, the events and what the tills heard are one story."""
    if [entry["seq"] for entry in found.entries] != [*range(1, len(found.entries) + 1)]:
        yield "the entries have a gap"
    numbers = {entry["seq"]: entry["transactionNo"] for entry in found.entries}
    for stream, events in found.events.items():
        if [one["offset"] for one in events] != [*range(1, len(events) + 1)]:
            yield f"{stream}: the events have a gap"
        told: dict[str, Json] = {}
        for one in events:
            event, data = one["event"], one["event"]["data"]
            seq = int(event["id"].rpartition("-")[2])
            if numbers.get(seq) not in (event["subject"], None):
                yield f"{stream}: event {one['offset']} is of another entry"
            before = told.get(event["subject"], {"stateVersion": 0})
            if data["stateVersion"] != before["stateVersion"] + 1:
                yield f"{stream}: version {data['stateVersion']} after {before}"
            told[event["subject"]] = data
        for number, data in told.items():
            shown = found.transactions.get(number, {})
            unlike = [name for name in SHOWN_ALIKE if shown.get(name) != data[name]]
            if unlike:
                yield f"{number}: the API says {shown}, the last event {data}: {unlike}"
    for till in tills:
        yield from till.wrong
        events = found.events[till.stream]
        if till.heard != {one["offset"]: one["event"] for one in events}:
            yield f"{till.stream}: the till heard {len(till.heard)} of {len(events)} events"


def _status(
    sale: Sale | None, one: Json | None, lines: Sequence[Json], pockyt: PockytOfTruth
) -> Iterator[str]:
    """What the API says is true at Pockyt."""
    if sale is None:
        if one is not None and one["transactionNo"] is not None:
            yield f"Pockyt knows nothing of it: {one}"
        return
    if one is None or one["transactionNo"] is None:
        yield f"never found at Pockyt: {one}"
        return
    truth, said = pockyt.book.truth(sale), one["status"]
    if one["transactionNo"] != sale.transaction_no:
        yield f"it has the number {one['transactionNo']}, in truth {sale.transaction_no}"
    decisions = [line for line in lines if line["kind"] == "decision"]
    if decisions:
        newest = decisions[-1]
        seen = newest["asOf"] or newest["seq"]
        later = [line for line in lines if line["seq"] > seen and line is not newest]
        is_last = not any(line["providerStatus"] for line in later)
        if is_last and said != newest["fields"].get("status", said):
            yield f"{said}, though decided: {newest}"
        return
    # A refund that Pockyt shows as `closed`, of a payment that nobody was ever told of.
    was_heard = any(line["providerStatus"] == "success" and not line["held"] for line in lines)
    is_shown_closed = truth == "refunded" and pockyt.book.shown(sale) is Word.CLOSED
    is_hidden = is_shown_closed and not was_heard and said == "cancelled"
    # An answer that is not final says nothing, so created may be pending.
    is_open = said in PAYABLE and truth in PAYABLE
    if said != truth and not is_hidden and not is_open:
        yield f"{said}, in truth {truth}, cancel {one['cancel']}"
    if one["held"]:
        yield f"still held: {one}"


def _cancel(one: Json | None, wished: Wishes, lines: Sequence[Json]) -> Iterator[str]:
    """Every cancel that was accepted is there, and has ended."""
    accepted = [
        press for press in wished.presses if press.answer and press.answer.status in (200, 202, 409)
    ]
    cancel = one["cancel"] if one else None
    if any(_is_taken(press) for press in accepted) and cancel is None:
        yield f"a cancel was answered {accepted[0].answer}, and is not there"
    requests = [line for line in lines if line["kind"] == "cancel_request"]
    if requests and not wished.presses:
        yield "nobody wished to cancel it"
    if cancel is None:
        return
    # An operator and Pockyt may contradict each other for good.
    is_decided = any(line["kind"] == "decision" for line in lines)
    if cancel["state"] not in ("confirmed", "refused", "refunded") and not (
        cancel["state"] == "unresolved" and is_decided
    ):
        yield f"its cancel has not ended: {cancel}"


def _silence(one: Json | None, found: Found, down: Sequence[tuple[int, int]]) -> Iterator[str]:
    """A till that was told of a cancel is told of its end, or that there is none, in time."""
    number = one["transactionNo"] if one else None
    told = [one["event"] for events in found.events.values() for one in events]
    of = [event for event in told if event["subject"] == number]
    for place, event in enumerate(of):
        if event["type"] != "transaction.cancelling":
            continue
        began_ms = _ms(event["time"])
        dead_ms = sum(end - begin + GRACE_MS for begin, end in down if end > began_ms)
        ended = next((later for later in of[place:] if later["type"] in ENDS), None)
        if ended is None or _ms(ended["time"]) - began_ms > RAISED_MS + dead_ms:
            yield f"a cancel of {event['time']} was silent until {ended}"


def _calls(calls: Sequence[Called], wished: Wishes, lines: Sequence[Json]) -> Iterator[str]:
    """/cancel follows a question that allows it, once for each wish, and no decision."""
    refunds = any(press.refunds for press in wished.presses)
    last: str | None = None
    for call in calls:
        if call.call is Call.TRAN_QUERY:
            last = call.word
        elif call.call is Call.CANCEL:
            is_allowed = last in (Word.INIT, Word.PENDING) or (refunds and last == Word.SUCCESS)
            if not is_allowed:
                yield f"/cancel after {last}"
            last = None
            yield from _overruled(call, wished, lines)
        elif call.call is Call.REFUND:
            yield "/refund was called"
    sent = [call for call in calls if call.call is Call.CANCEL]
    refused = sum(call.refused for call in sent)
    if len(sent) - refused > len(wished.presses):
        yield f"{len(sent)} /cancel ({refused} refused) for {len(wished.presses)} wishes"


def _overruled(call: Called, wished: Wishes, lines: Sequence[Json]) -> Iterator[str]:
    """No /cancel is sent after somebody decided, or was told that paid is kept, without a wish."""
    ends = [_ms(line["recordedAt"]) for line in lines if line["kind"] == "decision"]
    ends += [
        press.answered_ms
        for press in wished.presses
        if press.answer and press.answer.body.get("code") == "already-paid"
    ]
    for end_ms in ends:
        is_wished = any(
            press.answered_ms >= end_ms + 1 or press.answer is None for press in wished.presses
        )
        if call.at_ms > end_ms + UNDER_WAY_MS and not is_wished:
            yield f"/cancel {call.at_ms - end_ms} ms after it was overruled"


def _refund(sale: Sale | None, wished: Wishes) -> Iterator[str]:
    """No money goes back that nobody wished to cancel, and none goes back twice."""
    if sale is None:
        return
    if sale.undone and not wished.presses:
        yield "refunded, and nobody wished to cancel it"
    if sale.refunded > sale.amount:
        yield f"refunded {sale.refunded} of {sale.amount}"


def _is_taken(press: Press) -> bool:
    return press.answer is not None and press.answer.body.get("code") != "under-way"


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)
