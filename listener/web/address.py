"""The address that the service listens on, and those of its senders."""

import socket
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

BACKLOG: Final = 4_096
# For each connection: what the kernel buffers for a till that does not read, and how long it waits
# for it.
SEND_BUFFER_BYTES: Final = 128 * 1024
UNHEARD_MS: Final = 30_000


def bind(
    host: str, port: int, *, backlog: int = 1, reuse_port: bool = False, listens: bool = True
) -> socket.socket:
    """Bind a socket to a host and port; ``::`` means every address of the machine, IPv4 included.

    Args:
        host: An address of this machine, or a name that resolves to one.
        port: 0 lets the system choose.
        backlog: How many connections may wait to be accepted.
        reuse_port: Share the port with the other workers of this service.
        listens: False only reserves the port.

    Raises:
        OSError: The address is taken, or is not this machine's; its text says what to do.
    """
    try:
        return _bind(host, port, backlog=backlog, reuse_port=reuse_port, listens=listens)
    except OSError as error:
        reason = f"{error.strerror or error}: choose another host or port"
        raise OSError(error.errno, reason) from error


def _bind(host: str, port: int, *, backlog: int, reuse_port: bool, listens: bool) -> socket.socket:
    if not reuse_port:
        if ":" not in host:
            return socket.create_server((host, port), backlog=backlog)
        everywhere = socket.has_dualstack_ipv6() and is_everywhere(host)
        return socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=everywhere
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shared = socket.socket(family, socket.SOCK_STREAM)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            dual = socket.has_dualstack_ipv6() and is_everywhere(host)
            shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        shared.bind((host, port))
        if listens:
            shared.listen(backlog)
    except BaseException:
        shared.close()
        raise
    return shared


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """Bind the socket; connections inherit the options that are set here."""
    listening = bind(host, port, backlog=BACKLOG, reuse_port=shared)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_MS)
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the URL of a socket that is listened on."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def node_url(listening: socket.socket) -> str:
    """Return this node's URL for people; an address that every machine has would name none."""
    host, port = listening.getsockname()[:2]
    if is_everywhere(host) or ip_address(host).is_loopback:
        return f"http://{socket.gethostname()}:{port}"
    return url_of(listening)


def is_everywhere(host: str) -> bool:
    """Return whether a host to listen on means every address of the machine."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def network(peer: object) -> str:
    """Return the address of a peer; for IPv6, the part that belongs to one customer."""
    if not isinstance(peer, tuple) or not peer:
        return ""
    address = str(peer[0])
    if ":" not in address:
        return address
    with suppress(ValueError):
        number = IPv6Address(address.partition("%")[0])
        if number.ipv4_mapped is None:
            return str(IPv6Network((number, 64), strict=False))
    return address
