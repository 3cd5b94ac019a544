"""Run what the pages need: the sandbox, and a listener that can be killed and started again."""

import json
import re
import signal
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from listener.commands.keys import make_key
from listener.keys import Role
from listener.pockyt.signature import FIELD, Token, sign
from listener.settings import Settings, load
from tests.support.commands import Started, started, write_settings
from tests.support.ports import free_port

MERCHANT_NO = "200043"
STORE_NO = "303660"
TOKEN = Token("5cbfb079f15b150122261c8537086d77a")
ANSWER_SECONDS = 10
MORE = """
public_url = "{url}"
# The sandbox has no page to show; what is on it is one of another origin.
origins = ["{sandbox_url}"]
[pockyt]
url = "{sandbox_url}"
"""


@dataclass(slots=True, kw_only=True)
class Stage:
    """A listener at a fixed address, its ledger, and the sandbox that it calls Pockyt."""

    url: str
    sandbox_url: str
    path: Path
    settings: Settings
    program: Started | None = None
    _life: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start the listener, and wait until it serves."""
        self.program = self._life.enter_context(started("serve", "--config", self.path))
        self.program.until(self.program.err, "serving")

    def kill(self) -> None:
        """Kill the listener as a power cut would."""
        if self.program is not None and self.program.process.poll() is None:
            self.program.stop(signal.SIGKILL)
        self._life.close()
        self.program = None

    def key(self, role: Role, *, terminal: str | None = None, may_refund: bool = False) -> str:
        """Make a key; a pos key is one of the store."""
        return self.key_and_id(role, terminal=terminal, may_refund=may_refund)[0]

    def key_and_id(
        self, role: Role, *, terminal: str | None = None, may_refund: bool = False
    ) -> tuple[str, str]:
        is_pos = role is Role.POS
        make = partial(
            make_key,
            self.settings,
            role=role,
            merchant_no=MERCHANT_NO if is_pos else None,
            store_no=STORE_NO if is_pos else None,
            terminal=terminal,
            may_refund=may_refund,
        )
        # Playwright holds this thread's event loop; a ledger on PostgreSQL needs one.
        with ThreadPoolExecutor(1) as thread:
            made, text = thread.submit(make).result()
        return text, made.id

    def notify(
        self, transaction_no: str, status: str, *, store_no: str = STORE_NO, **changes: str
    ) -> None:
        """Send a signed notification, as Pockyt would."""
        fields = {
            "transactionNo": transaction_no,
            "status": status,
            "amount": "13.00",
            "currency": "USD",
            "settleCurrency": "USD",
            "reference": f"ref-{transaction_no[-6:]}",
            "time": "20261123181112",
            **changes,
        }
        body = urlencode({**fields, FIELD: sign(fields, TOKEN)}).encode()
        assert self._post(f"{self.url}/notify/{MERCHANT_NO}/{store_no}", body) == b"success"

    def pay(self, transaction_no: str) -> None:
        """Pay as the customer."""
        self._post(f"{self.sandbox_url}/sandbox/pay/{transaction_no}", b"")

    def plan(self, *faults: str) -> None:
        """Plan what goes wrong at the sandbox, instead of what was planned."""
        self._post(f"{self.sandbox_url}/sandbox/faults", json.dumps({"faults": faults}).encode())

    def _post(self, url: str, body: bytes) -> bytes:
        with urllib.request.urlopen(url, data=body, timeout=ANSWER_SECONDS) as answer:
            content: bytes = answer.read()
        return content


@contextmanager
def running_stage(directory: Path, *, database: str | None = None) -> Iterator[Stage]:
    """Run the sandbox and the listener for as long as the context lasts.

    Without ``database`` the ledger is a file in the directory.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    notify_url = f"{url}/notify/{{merchantNo}}/{{storeNo}}"
    with started("sandbox", "--port", "0", "--notify-url", notify_url, "--json") as sandbox:
        begun: Mapping[str, Mapping[str, str]] = json.loads(
            sandbox.until(sandbox.out, '"step":"started"')
        )
        sandbox_url = begun["detail"]["url"]
        path = write_settings(directory, more=MORE.format(url=url, sandbox_url=sandbox_url))
        text = path.read_text().replace("port = 0", f"port = {port}")
        if database is not None:
            text = re.sub('database = ".*"', f'database = "{database}"', text)
        path.write_text(text)
        stage = Stage(url=url, sandbox_url=sandbox_url, path=path, settings=load(path, {}))
        try:
            stage.start()
            yield stage
        finally:
            stage.kill()
