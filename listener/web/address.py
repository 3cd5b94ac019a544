"""The address that the service listens on."""

import socket
from ipaddress import ip_address


def bind(host: str, port: int, *, backlog: int = 1) -> socket.socket:
    """Listen on a host and port; ``::`` is every address of the machine, those of IPv4 too.

    Raises:
        OSError: The address is taken, or is not this machine's.
    """
    if ":" not in host:
        return socket.create_server((host, port), backlog=backlog)
    everywhere = socket.has_dualstack_ipv6() and is_everywhere(host)
    return socket.create_server(
        (host, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=everywhere
    )


def is_everywhere(host: str) -> bool:
    """Return whether a host to listen on means every address of the machine."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
