"""The programs of docs/guides/start-and-cancel.md run, word for word."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.shop import Shop, open_shop

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "start-and-cancel.md"


def _program(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return str(found)


async def _run(shop: Shop, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "LISTENER": shop.serving.url, "KEY": shop.key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        told, failed = await process.communicate()
    assert process.returncode == 0, failed.decode()
    return told.decode()


@pytest.mark.parametrize(
    ("language", "command"), [("bash", ("bash", "-c")), ("python", (sys.executable, "-c"))]
)
async def test_a_sale_is_started_cancelled_and_watched(
    tmp_path: Path, language: str, command: tuple[str, ...]
) -> None:
    async with open_shop(tmp_path / "ledger.db") as shop:
        told = await _run(shop, *command, _program(language))
        (sale,) = shop.sandbox.book
        assert shop.sandbox.book.truth(sale) == "cancelled"
        assert sale.transaction_no in told
        assert "transaction.cancelled" in told
        assert shop.key not in told
