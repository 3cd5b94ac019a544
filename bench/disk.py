"""Measure the disk alone: bare write + fdatasync, at the rate that a server is measured at."""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

PAGE_BYTES: Final = 4096
# As a WAL does it: grow to this, then begin again at the front.
FILE_BYTES: Final = 4 * 1024 * 1024


def sync_ms(directory: Path, *, rate: float, seconds: float) -> np.ndarray:
    """Return how long each write + fdatasync took, in ms.

    ``rate`` a second fall due by the clock; those that fall due during a sync wait for the next,
    their clock running, and share it, as they would in a group commit. The time it takes to wake
    up for one is not counted: it is not the disk's. Rate 0: one after the other.
    """
    taken: list[float] = []
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        start = time.perf_counter()
        count, written = 0, 0
        most = int(rate * seconds) if rate else 10_000_000
        while count < most and (now := time.perf_counter()) - start < seconds + 5:
            if not rate and now - start > seconds:
                break
            due = [now] if not rate else [start + count / rate]
            if due[0] > now:
                time.sleep(due[0] - now)
                due[0] = now = time.perf_counter()
            while rate and (following := start + (count + len(due)) / rate) <= now:
                due.append(following)
            for _ in due:
                os.pwrite(file.fileno(), b"\1" * PAGE_BYTES, written % FILE_BYTES)
                written += PAGE_BYTES
            os.fdatasync(file.fileno())
            done = time.perf_counter()
            taken += [(done - one) * 1e3 for one in due]
            count += len(due)
    return np.array(taken)
