"""Host names that the service answers. A web page can make a browser send requests to a loopback service
under its own host name (DNS rebinding); such requests are rejected.
"""

from collections.abc import Iterable
from ipaddress import ip_address

__all__ = ["AllowedHosts"]


class AllowedHosts:
    """Host names (``Host`` header) to which the service responds.

    On a loopback address these are loopback names and addresses, and the additional names. On other addresses they are
    the same if additional names are given, else all names.

    Args:
        address: Address on which the service listens.
        names: Additional names, without port.
    """

    def __init__(self, address: str, names: Iterable[str] = ()) -> None:
        self.names = frozenset(map(_normalize, names))
        self.any = not self.names and not _is_loopback(address)

    def accept(self, header: bytes) -> bool:
        """Whether a request with this ``Host`` header is answered: a name or an address, with or without a port."""
        if self.any:
            return True
        host = header.decode("latin-1").strip()
        if host.startswith("["):  # IPv6
            host, _, port = host[1:].partition("]")
        else:
            host, _, port = host.partition(":")
        if port.removeprefix(":") and not port.removeprefix(":").isdigit():
            return False
        name = _normalize(host)
        return name in self.names or name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _normalize(name: str) -> str:
    """A name in lower case, without brackets and the dot of a fully qualified name."""
    return name.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _is_loopback(name: str) -> bool:
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
