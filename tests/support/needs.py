"""What tests need beside Python: a developer may lack it, CI may not."""

import os
import shutil
from typing import NoReturn

import pytest


def program(name: str, *, package: str | None = None) -> str:
    """Return where a program is; without it a test is skipped, and in CI it fails."""
    return shutil.which(name) or missing(package or name)


def missing(package: str) -> NoReturn:
    """Skip a test for want of a Debian package, or fail where that is CI."""
    advice = f"{package} is not installed; on Debian: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(advice)
    pytest.skip(advice)
