"""Schedule the questions to Pockyt: why it is asked about a transaction, and when; pure."""

import re
from typing import Final, Literal
from zlib import crc32

from msgspec.structs import replace

from listener.ledger.belief import Belief
from listener.ledger.model import (
    PAYABLE,
    Ask,
    Cancel,
    CancelState,
    Entry,
    Evidence,
    Kind,
    Status,
    Transaction,
    Why,
)
from listener.ledger.status import FINAL, is_charging, is_raised

Confirm = Literal["off", "suspicious", "always"]

# How long after the first doubt Pockyt is asked; then hourly, until the last.
ASK_SECONDS: Final = (3, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800)
ASK_EVERY_SECONDS: Final = 3_600
# When Pockyt is asked about a prepay without a recorded answer, after it was about to be sent: by
# then the call has ended.
ASK_CHARGING_SECONDS: Final = 15
ASK_SECONDS_MAX: Final = 48 * 3_600
ASK_JITTER: Final = 0.1
# How long after a cancel was confirmed or refused Pockyt is asked again: a payment under way may
# have arrived since, or /cancel been carried out late, and the notification of it may be lost.
# Pockyt repeats a notification for two hours.
ASK_CANCELLED_SECONDS: Final = (60, 600, 7_200)
# When silence is due to be raised. A till is told within 60 s, which must leave time for the
# chaser's pause, its look at the ledger, and the commit.
RAISE_SECONDS: Final = 57
SALE_MINUTES: Final = 120

_MINUTES: Final = re.compile("[0-9]{1,5}")


def why_ask(
    belief: Belief, cancel: Cancel | None, sale: Entry | None, confirm: Confirm
) -> Why | None:
    """Return why Pockyt is to be asked about a transaction; None where nothing is in doubt."""
    if cancel and cancel.resolved_at_ms is None:
        return Why.CANCEL
    if confirm != "off":
        if belief.status is Status.CONFLICT:
            return Why.CONFLICT
        if belief.held:
            return Why.HELD
        if belief.status is Status.UNKNOWN or belief.unread:
            return Why.UNKNOWN
    if cancel and not belief.is_decided and _may_turn(belief):
        return Why.CANCELLED
    if confirm == "always" and belief.status in FINAL and not belief.is_decided:
        return None if belief.evidence is Evidence.QUERY else Why.CONFIRM
    return Why.SALE if sale and belief.status in PAYABLE else None


def _may_turn(belief: Belief) -> bool:
    """Return whether a cancel may still turn out to have ended differently.

    A payment that arrived just before /cancel was refunded by it, and one that was under way in
    the wallet may arrive after it. A /cancel whose answer was lost may be carried out late, and
    then refunds what was told as paid.
    """
    if belief.status is Status.REFUNDED:
        return belief.evidence is not Evidence.QUERY
    return belief.status in (Status.CANCELLED, Status.PAID)


def next_ask(
    before: Transaction | None,
    entry: Entry,
    why: Why | None,
    sale: Entry | None,
    cancel: Cancel | None,
) -> Ask | None:
    """Schedule the next question to Pockyt, by the schedule of the present doubt."""
    if why is None:
        return None
    now_ms = entry.recorded_at_ms
    asked = before.ask if before else None
    kind = entry.fact.kind
    # After 48 hours asking stops, until there is a new reason.
    is_news = kind is Kind.NOTIFICATION and asked is not None and asked.due_at_ms is None
    is_charge = _is_pay(entry) or _is_pay_over(entry)
    begins = kind is Kind.CANCEL_REQUEST or (why is Why.SALE and is_charge)
    if asked is None or asked.why is not why or is_news or begins:
        first = _first_ask(why, entry, sale, cancel)
        return _keep_alarm(first, asked) if kind is Kind.CANCEL_REQUEST else first
    raised = is_raised(entry)
    is_answer = kind is Kind.QUERY
    # A young sale may be asked about, and then again only when it times out.
    asked_ms = max(now_ms, asked.since_ms) if why is Why.SALE else now_ms
    attempt = asked.attempt + is_answer
    due_ms = asked.due_at_ms
    if is_answer:
        due_ms = _next_ask_ms(why, asked.since_ms, asked_ms, entry, attempt=attempt)
    return Ask(
        why=why,
        since_ms=asked.since_ms,
        due_at_ms=due_ms,
        raise_at_ms=None if raised else asked.raise_at_ms,
        attempt=attempt,
    )


def _first_ask(why: Why, entry: Entry, sale: Entry | None, cancel: Cancel | None) -> Ask:
    now_ms = since_ms = entry.recorded_at_ms
    wait_seconds = ASK_CHARGING_SECONDS if is_charging(entry.fact) else ASK_SECONDS[0]
    due_ms: int | None = since_ms + wait_seconds * 1_000
    raise_ms: int | None = None
    if why is Why.SALE and sale is not None and not _is_pay(entry):
        timeout = sale.fact.field("timeout") or ""
        minutes = int(timeout) if _MINUTES.fullmatch(timeout) else SALE_MINUTES
        since_ms = due_ms = sale.recorded_at_ms + minutes * 60_000
    elif why is Why.CANCEL and cancel is not None and cancel.requested_at_ms < now_ms:
        # A cancel that seemed settled resumes its old schedule: a till has waited since then. So
        # does one that was a sale's until now, but its number has never been asked about.
        since_ms = cancel.requested_at_ms
        if entry.fact.kind is not Kind.CANCEL_REQUEST:
            due_ms = next_due_ms(since_ms, now_ms, entry.fact.transaction_no)
    elif entry.fact.kind is Kind.QUERY:
        due_ms = _next_ask_ms(why, since_ms, now_ms, entry)
    is_raised = cancel is not None and cancel.state is CancelState.UNRESOLVED
    if not why.is_calm and not (why is Why.CANCEL and is_raised):
        raise_ms = _wish_raise_ms(entry) or since_ms + RAISE_SECONDS * 1_000
    return Ask(why=why, since_ms=since_ms, due_at_ms=due_ms, raise_at_ms=raise_ms)


def _wish_raise_ms(entry: Entry) -> int | None:
    """Return when a new wish is to be raised; None where the entry is no wish.

    A wish taken over from a sale keeps its moment; if that had ended, a new minute begins.
    """
    if entry.fact.kind is not Kind.CANCEL_REQUEST:
        return None
    kept = entry.fact.field("raiseAt")
    return int(kept) if kept else entry.recorded_at_ms + RAISE_SECONDS * 1_000


def _keep_alarm(first: Ask, asked: Ask | None) -> Ask:
    """Return when an alarm is due; a cashier who presses again does not postpone it."""
    if asked is None or asked.why is not first.why:
        return first
    times = [at for at in (asked.raise_at_ms, first.raise_at_ms) if at is not None]
    return replace(first, raise_at_ms=min(times, default=None))


def _is_pay(entry: Entry) -> bool:
    """Return whether a customer's code was just charged: a till waits for the result."""
    return _is_prepay(entry) and entry.fact.field("error") != "refused"


def _is_pay_over(entry: Entry) -> bool:
    """Return whether Pockyt refused a code, and no other one is in doubt.

    Then the questions that began before the call end. Earlier versions asked none.
    """
    fact = entry.fact
    began = fact.field("chargeSeq") is not None and fact.field("doubt") is None
    return began and _is_prepay(entry) and fact.field("error") == "refused"


def _is_prepay(entry: Entry) -> bool:
    return entry.fact.kind is Kind.ANSWER and entry.fact.field("call") == "prepay"


def _next_ask_ms(
    why: Why, since_ms: int, now_ms: int, entry: Entry, *, attempt: int = len(ASK_SECONDS)
) -> int | None:
    """Return when to ask again after Pockyt was asked; None where that was enough."""
    number = entry.fact.transaction_no
    if why is not Why.CANCELLED:
        return next_due_ms(since_ms, now_ms, number, attempt=attempt)
    if entry.fact.says not in FINAL:
        # Its own moments are fewer, so few questions do not mean that some were missed.
        return next_due_ms(since_ms, now_ms, number)
    waited = (now_ms - since_ms) / 1_000
    moment = next((s for s in ASK_CANCELLED_SECONDS if s > waited + 0.5), None)
    return None if moment is None else since_ms + moment * 1_000


def next_due_ms(
    since_ms: int, now_ms: int, key: str, *, attempt: int = len(ASK_SECONDS)
) -> int | None:
    """Return when to ask again (Unix ms); None after 48 hours.

    ``key`` names what is asked about, and jitters the moment. An entry's seq cannot do that: where
    others record meanwhile, it moves after this is worked out.

    ``attempt`` is how many questions were asked. Where they are fewer than ASK_SECONDS has moments,
    the listener was off or asleep meanwhile, perhaps for days, and its network may come up later
    than it does: then the questions that it missed are asked before it gives up.
    """
    waited = max(0, now_ms - since_ms) / 1_000
    has_missed = attempt < len(ASK_SECONDS)
    if waited >= ASK_SECONDS_MAX and not has_missed:
        return None
    # Jitter can make a question early; nothing is asked a second time at its own moment.
    past = waited * (1 + ASK_JITTER) + 0.5
    moment = next((s for s in ASK_SECONDS if s > past), waited + ASK_EVERY_SECONDS)
    pause = moment - waited
    if has_missed:
        pause = min(pause, ASK_SECONDS[attempt])
    spread = crc32(f"{key} {now_ms}".encode(errors="replace")) / 2**32 * 2 - 1
    return now_ms + int(pause * 1_000 * (1 + ASK_JITTER * spread))
