"""What came after a backup is told to the restored ledger, by the script of docs/operations.md."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from listener.keys import Role
from listener.ledger.model import Kind
from listener.ledger.scope import Scope
from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.storage import backup
from tests.support import commands
from tests.support.service import TOKEN_TEXT, Serving, serving
from tests.support.shop import Shop, beside
from tests.support.stored import url_of

SALES = "/v1/transactions"


def again(folder: Path, url: str) -> Path:
    """Write the script that docs/operations.md shows, for a service at another address."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (block,) = re.findall(
        r"^  ```python\n(  # again\.py.*?)^  ```$", page, re.DOTALL | re.MULTILINE
    )
    script = folder / "again.py"
    script.write_text(textwrap.dedent(block).replace("http://127.0.0.1:8080", url))
    return script


async def test_the_script_that_sends_again_goes_on_and_names_what_was_not_taken(
    tmp_path: Path,
) -> None:
    fields = [
        ("200043", {"transactionNo": "1", "status": "closed"}),
        ("200043", {"-transactionNo": "2", "status": "closed"}),
        ("200043", {"": "3", "status": "closed"}),
        ("200043", {"transactionNo": "4", "note": "a\0b"}),
        ("200043", {"transactionNo": "5", "a=b": "c"}),
        ("200044", {"transactionNo": "6", "status": "closed"}),
        ("200043", {}),
        ("200043", {"transactionNo": "8", "status": "closed"}),
    ]
    lines: list[dict[str, object]] = [
        {
            "seq": seq,
            "kind": "notification",
            "merchantNo": merchant,
            "storeNo": None,
            "transactionNo": all_.get("transactionNo"),
            "fields": all_,
        }
        for seq, (merchant, all_) in enumerate(fields, start=1)
    ]
    nameless: dict[str, object] = {"transactionNo": None, "reference": None, "fields": {}}
    lines.append({"seq": 9, "kind": "query", "merchantNo": "200043", "storeNo": None} | nameless)
    async with serving(tmp_path / "ledger.db") as service:
        status, told = await send_again(tmp_path, service, lines)
        found = await service.ledger.read_entries(after=0, limit=9, scope=Scope())
    # Meanwhile Pockyt may have been asked about them.
    sent = [line.entry.fact for line in found if line.entry.fact.kind is Kind.NOTIFICATION]
    assert [fact.field("status") for fact in sent] == ["closed"] * 3
    assert [fact.transaction_no for fact in sent] == ["1", "", "8"]
    assert status == 1
    assert told.splitlines()[-1] == "not sent, or not taken: seq 3, 4, 5, 7"
    assert "Traceback" not in told


async def test_sales_cancels_and_refunds_since_the_backup_are_made_known(tmp_path: Path) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "copy.db"
    config = commands.write_settings(tmp_path)
    async with Sandbox.start(SandboxSettings()) as sandbox:
        async with beside(sandbox, path) as service:
            shop = till_of(sandbox, service)
            refunded = await paid(shop)
            await asyncio.to_thread(backup, url_of(path), copy)
            after = await service.ledger.seq()
            told = await shop.post(f"{SALES}/{refunded}/cancel", {"refundIfPaid": True})
            assert told.body["status"] == "refunded"
            opened, wished = [(await shop.start(vendor="alipay")).number for _ in range(2)]
            shop.plan("query-5xx")
            assert (await shop.post(f"{SALES}/{wished}/cancel")).status == 202
            shop.plan()
        done = await asyncio.to_thread(
            commands.run, "export", "--config", config, "--after", str(after)
        )
        path.unlink()
        shutil.move(copy, path)
        async with beside(sandbox, path) as service:
            shop = till_of(sandbox, service)
            assert (await shop.detail(refunded))["status"] == "paid"
            assert (await shop.post(f"{SALES}/{opened}/cancel")).status == 404
            lines = [json.loads(line) for line in done.out.splitlines()]
            status, said = await send_again(tmp_path, service, lines)
            assert status == 0, said
            wants = f"{wished}: somebody wanted it cancelled or refunded, and it is created"
            assert [line for line in said.splitlines() if "somebody" in line] == [wants]
            assert (await shop.detail(refunded))["status"] == "refunded"
            for number in (opened, wished):
                told = await shop.post(f"{SALES}/{number}/cancel")
                assert (told.status, told.body["status"]) == (200, "cancelled")


def till_of(sandbox: Sandbox, service: Serving) -> Shop:
    return Shop(sandbox=sandbox, serving=service, key=service.key(may_refund=True))


async def paid(shop: Shop) -> str:
    """Start a sale, let the customer pay, and wait until the till is told."""
    number = (await shop.start(vendor="alipay")).number
    url = f"{shop.sandbox.url}/sandbox/pay/{number}"
    async with shop.serving.client.post(url) as answer:
        assert answer.status == 200
    async with asyncio.timeout(10):
        while (await shop.detail(number))["status"] != "paid":
            await asyncio.sleep(0.01)
    return number


async def send_again(
    folder: Path, service: Serving, lines: list[dict[str, object]]
) -> tuple[int, str]:
    """Run the script on exported lines; return its exit code, and all that it wrote."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        again(folder, service.url),
        "200043",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            "POCKYT_TOKEN": TOKEN_TEXT,
            "ADMIN": service.key(Role.ADMIN, merchant_no=None, store_no=None),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
    )
    told, _ = await program.communicate("".join(f"{json.dumps(one)}\n" for one in lines).encode())
    return await program.wait(), told.decode()
