"""A port for a program that a test starts."""

import random
import socket
from contextlib import suppress
from typing import Final

# Below those that Linux gives to outgoing connections: one of these could take the port before the
# program that it was found for.
PORTS: Final = range(10_000, 32_000)


def free_port() -> int:
    """Return a port that nobody has; also one that nobody will listen on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as one, suppress(OSError):
            one.bind(("", port))
            return port
