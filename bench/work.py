"""Make the work: distinct signed notifications, and what strangers send, as whole HTTP requests."""

import hashlib
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import numpy as np

MERCHANT_NO: Final = "200043"
STORE_NO: Final = "303660"
# Pockyt's public sample token, from the Cancel API tutorial.
TOKEN: Final = "359c05eb811c7c8576f4a8a277dc6f6b"
STREAM: Final = f"{MERCHANT_NO}/{STORE_NO}"
TRANSACTION_BASE: Final = 300_000_000_000_000_000
STATUSES: Final = ("success", "closed", "failed")
WEIGHTS: Final = (7, 2, 1)

HEAD: Final = (
    f"POST /notify/{MERCHANT_NO}/{STORE_NO} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n%s\r\n%s"
)
# What a proxy in front adds, of which no two are alike.
PROXY_HEAD: Final = "X-Forwarded-For: 203.0.113.%d\r\nX-Request-Id: %032x\r\n"


def notifications(*, count: int, seed: int, first: int = 0) -> Iterator[dict[str, str]]:
    """Yield payment notifications as Pockyt's v3 sends them, each of its own transaction."""
    chance = random.Random(seed)
    for number in range(first, first + count):
        yield {
            "amount": f"{chance.randint(1, 99)}.{chance.randint(0, 99):02}",
            "currency": "USD",
            "reference": f"bench-{number:09}",
            "settleCurrency": "USD",
            "status": chance.choices(STATUSES, WEIGHTS)[0],
            "time": f"20261123{number // 3600 % 24:02}{number // 60 % 60:02}{number % 60:02}",
            "transactionNo": str(TRANSACTION_BASE + number),
        }


def sign(fields: dict[str, str]) -> str:
    """Sign fields; written out, so that no peer's code is trusted."""
    joined = "&".join(f"{name}={fields[name]}" for name in sorted(fields))
    digest = hashlib.md5(TOKEN.encode()).hexdigest()
    return hashlib.md5(f"{joined}&{digest}".encode()).hexdigest()


def notify_requests(
    *, count: int, seed: int, first: int = 0, is_proxied: bool = False
) -> Iterator[bytes]:
    """Yield notifications as HTTP requests; ``is_proxied``: with a head that differs in each."""
    chance = random.Random(seed)
    for fields in notifications(count=count, seed=seed, first=first):
        more = PROXY_HEAD % (chance.randint(1, 254), chance.getrandbits(128)) if is_proxied else ""
        yield request(form({**fields, "verifySign": sign(fields)}), more)


def form(fields: dict[str, str]) -> str:
    """Write fields as a form."""
    return urlencode(fields)


def request(body: str, more: str = "") -> bytes:
    """Write a POST to the notify URL, ``more`` being further lines of its head."""
    return (HEAD % (len(body), more, body)).encode()


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Write a file for ``post``: a count, count + 1 offsets (uint64), the requests' bytes."""
    written = [*requests]
    offsets = np.zeros(len(written) + 1, np.uint64)
    np.cumsum([len(request) for request in written], out=offsets[1:])
    with path.open("wb") as out:
        out.write(np.uint64(len(written)).tobytes())
        out.write(offsets.tobytes())
        out.writelines(written)
