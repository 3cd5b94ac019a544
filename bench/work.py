"""Make the work: distinct signed notifications, as whole HTTP requests in a file."""

import hashlib
import random
from collections.abc import Iterator
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
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s"
)


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
    """Sign fields whose names are in order; written out, so that no peer's code is trusted."""
    joined = "&".join(f"{name}={value}" for name, value in fields.items())
    digest = hashlib.md5(TOKEN.encode()).hexdigest()
    return hashlib.md5(f"{joined}&{digest}".encode()).hexdigest()


def write_requests(path: Path, *, count: int, seed: int, first: int = 0) -> None:
    """Write a file for ``post``: a count, count + 1 offsets (uint64), the requests' bytes."""
    requests = []
    for fields in notifications(count=count, seed=seed, first=first):
        body = urlencode({**fields, "verifySign": sign(fields)})
        requests.append((HEAD % (len(body), body)).encode())
    offsets = np.zeros(count + 1, np.uint64)
    np.cumsum([len(request) for request in requests], out=offsets[1:])
    with path.open("wb") as out:
        out.write(np.uint64(count).tobytes())
        out.write(offsets.tobytes())
        out.writelines(requests)
