"""Disks of a test's own, to be filled."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.needs import lacking


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Mount a disk of so many megabytes; without the right to, see :func:`needs.lacking`."""
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    mount = ("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)
    try:
        if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
            lacking("to mount a disk takes root")
        try:
            yield folder
        finally:
            subprocess.run(("umount", "--lazy", folder), check=True)
    finally:
        folder.rmdir()
