"""Which hosts callbacks may go to: the list of the settings, and addresses that nobody may reach.

An entry is a host's name, `*.` and the end of one, an address, or a network such as 10.0.0.0/8;
each may be followed by a port. A URL is looked at twice: its text when a task is submitted, and the
address that it leads to when a connection is made. A name that is on the list may lead to public
addresses, and to those that the list names: so a name's owner cannot point it at a neighbour.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

import msgspec

Address = IPv4Address | IPv6Address

URL_CHARACTERS_MAX: Final = 2_048
USUAL_PORTS: Final = (80, 443)
PORT_MIN: Final = 1_024
"""Ports below belong to services that are no web servers: an entry must name those it allows."""

_URL: Final = re.compile(
    r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[1-9][0-9]{0,4})?([/?][!-\"$-\[\]-~]*)?",
    re.IGNORECASE,
)
_NAME: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_ENTRY: Final = re.compile(
    r"(?P<v6>\[[0-9a-f:.]+\](/\d{1,3})?|[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:.]*(/\d{1,3})?)"
    r"|(?P<v4>\d+\.\d+\.\d+\.\d+(/\d{1,2})?)"
    r"|(?P<any>\*\.)?(?P<name>[a-z0-9_.-]+)"
)
_NUMBER: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
"""A name whose last part looks like this is taken for an address by some, in an odd spelling."""

_EMBEDDING: Final = tuple(
    map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96"))
)
"""Addresses that lead to an IPv4 address written into them."""


class Entry(msgspec.Struct, frozen=True):
    """One line of the list: a network, a name, or with `is_suffix` the end of names."""

    network: IPv4Network | IPv6Network | None = None
    name: str = ""
    is_suffix: bool = False
    port: int | None = None

    def holds_name(self, name: str) -> bool:
        if self.is_suffix:
            return name.endswith(f".{self.name}")
        return self.network is None and name == self.name

    def holds_address(self, address: Address) -> bool:
        network = self.network
        return network is not None and network.version == address.version and address in network

    def holds_port(self, port: int) -> bool:
        if self.port is not None:
            return port == self.port
        return port in USUAL_PORTS or port >= PORT_MIN


def parse_entry(text: str) -> Entry:
    """Raises ValueError, saying what was expected, for what is no entry."""
    lowered = text.lower()
    found = _ENTRY.match(lowered)
    rest = lowered[found.end() :] if found else ""
    if found is None or not re.fullmatch(r"(:[1-9][0-9]{0,4})?", rest):
        raise ValueError(f"expected a host, *.suffix, address or network, got {text[:80]!r}")
    port = int(rest[1:]) if rest else None
    if port is not None and port > 65_535:
        raise ValueError(f"expected a port of at most 65535, got {text[:80]!r}")
    if found["name"]:
        if not _NAME.fullmatch(found["name"]) or _is_number(found["name"]):
            raise ValueError(f"expected a host's name, got {text[:80]!r}")
        return Entry(None, found["name"], bool(found["any"]), port)
    network = (found["v6"] or found["v4"]).replace("[", "").replace("]", "")
    try:
        return Entry(ip_network(network), port=port)
    except ValueError as error:
        raise ValueError(f"{text[:80]!r}: {error}") from None


class AllowList:
    """The hosts that callbacks may go to."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises ValueError for what `parse_entry` does."""
        self.entries = tuple(map(parse_entry, entries))

    def allows_url(self, url: str) -> bool:
        """Whether a task may be submitted with it: an http(s) URL in plain ASCII, without
        credentials or fragment, whose host is on the list.

        The strict pattern leaves nothing for two URL parsers to read differently.
        """
        if len(url) > URL_CHARACTERS_MAX or not _URL.fullmatch(url):
            return False
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            return self._allows_host(parts.hostname or "", port)
        except ValueError:
            return False

    def _allows_host(self, host: str, port: int) -> bool:
        if ":" in host or _is_number(host):
            # Raises ValueError for an address in any spelling but the usual one.
            address = plain(ip_address(host))
            return any(e.holds_address(address) and e.holds_port(port) for e in self.entries)
        named = _NAME.fullmatch(host) is not None
        return named and any(e.holds_name(host) and e.holds_port(port) for e in self.entries)

    def allows_address(self, host: str, address: Address, port: int) -> bool:
        """Whether `host`, which a URL names, may be reached at `address`."""
        address = plain(address)
        if any(e.holds_address(address) and e.holds_port(port) for e in self.entries):
            return True
        if host == "localhost" and address.is_loopback:
            return True
        return is_public(address) and any(e.holds_name(host) for e in self.entries)


def plain(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one, as itself."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet, and can lead nowhere else."""
    if isinstance(address, IPv6Address) and any(address in n for n in _EMBEDDING):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _is_number(host: str) -> bool:
    return _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None
