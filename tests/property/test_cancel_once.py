"""However Pockyt answers, and whenever the listener is killed, a wish sends /cancel once."""

import asyncio
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from listener.ledger.model import Transaction
from listener.lifecycle import Lifecycle
from listener.pockyt.answer import PockytUnavailableError
from listener.pockyt.client import Call
from tests.property.world import BEGAN_MS, Plan, World

SEEDS: Final = 20
HOUR_MS: Final = 3_600_000
MEMORY: Final = Path("/dev/shm")
# What Pockyt is known to answer where it refuses a call and did nothing.
REFUSALS: Final = ("000020", "000021", "000022", "000023", "000030", "000040")
WORDS: Final = ("init", "pending", "dealing", "success", "closed", "failed", "refunded", "odd", "")


class Anything:
    """A Pockyt that answers whatever comes to its mind; it remembers what it was sent."""

    def __init__(self, world: World, dice: random.Random, *, refuses: bool) -> None:
        self.world = world
        self.dice = dice
        self.refuses = refuses
        self.cancels = 0
        self.refused = 0
        self.queries: list[str | None] = []
        self.licences: list[str | None] = []

    async def exchange(self, call: Call, body: bytes, **_request_id: str) -> bytes:
        if call is Call.CANCEL:
            self.cancels += 1
            self.licences.append(self.queries[-1])
        said = self._answer(call, json.loads(body))
        if self.dice.random() < 0.1:
            self.world.killed.set()
            await asyncio.get_running_loop().create_future()
        if isinstance(said, PockytUnavailableError):
            raise said
        return said

    def _answer(self, call: Call, fields: dict[str, str]) -> bytes | PockytUnavailableError:
        dice = self.dice
        kind = dice.choice(["answer", "answer", "answer", "failure", "refusal", "silence", "junk"])
        word: str | None = None
        if kind == "answer":
            word = dice.choice(WORDS)
            said = json.dumps({"ret_code": "000100", "result": self._result(fields, word)})
        elif kind == "refusal" and self.refuses:
            self.refused += call is Call.CANCEL
            said = json.dumps({"ret_code": dice.choice(REFUSALS), "ret_msg": "no"})
        elif kind in ("failure", "refusal"):
            code = dice.choice(["000000", "000080"])
            said = json.dumps({"ret_code": code, "result": {"error": "refused"}})
        elif kind == "silence":
            said = ""
        else:
            said = dice.choice(["<html>", "[]", "{}", '{"ret_code": null}', '{"ret_code": "0001'])
        if call is Call.TRAN_QUERY:
            self.queries.append(word)
        return said.encode() or PockytUnavailableError("it did not answer", reason="timeout")

    def _result(self, fields: dict[str, str], word: str) -> dict[str, object]:
        dice = self.dice
        result: dict[str, object] = {
            "transactionNo": fields["transactionNo"],
            "amount": dice.choice(["13.00", 13, "13.0"]),
            "currency": "USD",
            "reference": "R-1",
            "status": word,
            "transactionType": "payment",
            # What we write about a call is not for Pockyt to say.
            "error": dice.choice([None, "refused"]),
            "sent": dice.choice([None, "false"]),
        }
        if dice.random() < 0.2:
            result["refundInfo"] = [{"refundAmount": dice.choice(["1.00", "13.00"])}]
        return {name: value for name, value in result.items() if value is not None}


async def _hour(seed: int, *, refund: bool, refuses: bool, directory: Path) -> Anything:
    """Cancel one sale, and let an hour pass in which Pockyt answers anything at all."""
    dice = random.Random(f"anything {seed}")
    world = World(Plan(seed=seed, down_seconds=dice.choice([1.0, 90.0])), directory=directory)
    wild = Anything(world, dice, refuses=refuses)
    await world.start()
    try:

        async def start(life: Lifecycle) -> Transaction:
            return (await life.start_sale(world.order("R-1"))).transaction

        sold = await world.act(start)
        assert sold is not None
        if dice.random() < 0.5:
            world.pay("R-1")
        world.pockyt.exchange = wild.exchange  # type: ignore[method-assign]
        press: Callable[[Lifecycle], object] = lambda life: life.cancel(  # noqa: E731
            sold, refund_if_paid=refund
        )
        await world.act(press)  # type: ignore[arg-type]
        # A till that presses again while nobody knows makes no other wish of it.
        world.at(20.0, lambda: _press_again(world, sold, refund=refund))
        await world.run(until_ms=BEGAN_MS + HOUR_MS)
    finally:
        await world.stop()
    return wild


async def _press_again(world: World, sold: Transaction, *, refund: bool) -> None:
    await world.act(lambda life: life.cancel(sold, refund_if_paid=refund))


@pytest.mark.parametrize("refund", [True, False])
@pytest.mark.parametrize("refuses", [True, False])
async def test_one_wish_sends_cancel_once_unless_pockyt_refused_it(
    refund: bool, refuses: bool
) -> None:
    sent = 0
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
            wild = await _hour(seed, refund=refund, refuses=refuses, directory=Path(directory))
        assert wild.cancels <= 1 + wild.refused, seed
        allowed = {"init", "pending", "dealing"} | ({"success"} if refund else set())
        assert set(wild.licences) <= allowed, seed
        sent += wild.cancels
    # A Pockyt of which nobody ever asks for a cancel shows nothing.
    assert sent > SEEDS / 5
