"""Run schemathesis against the service, with the service's own description."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from listener.keys import Role
from listener.sandbox.servers import Sandbox, SandboxSettings
from tests.support.service import FIELDS, MERCHANT_NO, STORE_NO, TOKEN_TEXT, serving

# Of each operation; `make simulate` tries more.
EXAMPLES = os.environ.get("TEST_EXAMPLES", "1")
RUN_SECONDS = 240
# What is valid by its schema may still be refused: a position or a cursor of another ledger, a
# field twice in a form.
EXCLUDED = "positive_data_acceptance"
CONFIG = f"""
[parameters]
"path.merchantNo" = "{MERCHANT_NO}"
"path.storeNo" = "{STORE_NO}"
"query.wait" = 0

# In a body, what other languages write for nothing (null for a member that may be left out, null
# or [] for all of it) is taken, although the schema does not offer it.
[[operations]]
include-method = "POST"
checks.negative_data_rejection.enabled = false
"""


async def attack(url: str, key: str, *, folder: Path) -> tuple[int, str]:
    """Run schemathesis in a process of its own; return its exit code and what it printed."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(config),
        "run",
        f"{url}/openapi.json",
        "--header",
        f"Authorization: Bearer {key}",
        "--phases",
        "examples,coverage,fuzzing",
        "--exclude-checks",
        EXCLUDED,
        "--max-examples",
        EXAMPLES,
        "--request-timeout",
        "10",
        "--no-color",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Its own code is not what is covered here.
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
    )
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize("role", [Role.ADMIN, Role.POS])
async def test_no_request_brings_a_5xx_or_an_undocumented_answer(
    tmp_path: Path, role: Role
) -> None:
    sandbox_settings = SandboxSettings(merchants={MERCHANT_NO: TOKEN_TEXT})
    async with (
        Sandbox.start(sandbox_settings) as sandbox,
        serving(tmp_path / "ledger.db", confirm="off", pockyt={"url": sandbox.url}) as service,
    ):
        for number in range(60):
            number_text = str(int(FIELDS["transactionNo"]) + number)
            await service.notify({"transactionNo": number_text})
        is_pos = role is Role.POS
        key = service.key(role, merchant_no=MERCHANT_NO if is_pos else None, store_no=None)
        code, output = await attack(service.url, key, folder=tmp_path)
    assert code == 0, output.replace(key, "<key>")
