"""The short decision about a first notification is the long one, only sooner."""

from collections import Counter
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from listener.ledger import batch
from listener.ledger.transaction import Step, begin
from tests.property.decisions import main, play

HISTORIES = 200


def test_the_short_decision_comes_to_the_same_as_the_long_one() -> None:
    counts: Counter[str] = Counter()
    with patch.object(batch, "begin", wraps=begin) as short:
        for seed in range(1, HISTORIES + 1):
            counts += play(seed)
    # What never takes the short way, or never anything else, shows nothing.
    assert short.call_count > HISTORIES
    assert counts["entries"] > 2 * counts["begun"] > HISTORIES
    assert counts["repeats"] > HISTORIES


def test_a_short_decision_that_differs_is_found() -> None:
    def careless(*args: object, **options: object) -> Step | None:
        step = begin(*args, **options)  # type: ignore[arg-type] # handed through
        return replace(step, transaction=replace(step.transaction, held=True)) if step else None

    with patch.object(batch, "begin", careless), pytest.raises(AssertionError, match="batch"):
        for seed in range(1, 20):
            play(seed)


def test_the_command_says_what_held() -> None:
    result = CliRunner().invoke(main, ["--batches", "50"])
    assert result.exit_code == 0
    assert "the same in both ways" in result.output
