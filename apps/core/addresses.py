"""Where the gateway may connect to: the policy against server-side request forgery, without I/O.

Everything that is not globally routable is refused. Private targets are reached only if their
network (and port, where one is given) is on the deployment's list, which comes from the
environment and never from a form. Metadata and link-local addresses are refused even then.

Names are judged twice: `check_upstream_url` when a URL is saved, `is_address_allowed` for every
address the name resolves to, just before connecting to exactly that address.

Source: IANA special-purpose address registries; `ipaddress.is_global` alone lets NAT64, 6to4,
IPv4-compatible, multicast and several metadata addresses pass.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_URL_LENGTH_MAX: Final = 2048
_HOST_LENGTH_MAX: Final = 253
_NETWORKS_MAX: Final = 200
_PORT_MAX: Final = 65_535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# Refused whatever the list says: metadata services, link-local, "this host", multicast, and
# addresses that only wrap another one.
_NEVER: Final = _networks(
    "0.0.0.0/8",
    "100.100.100.200/32",  # Alibaba Cloud metadata
    "168.63.129.16/32",  # Azure wire server
    "169.254.0.0/16",  # link-local: most metadata services
    "192.0.0.192/32",  # Oracle Cloud metadata
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "64:ff9b:1::/48",  # NAT64 for local use
    "100::/64",
    "2001::/23",  # Teredo, ORCHID and other protocol assignments
    "2002::/16",  # 6to4
    "fd00:42::42/128",  # Scaleway metadata
    "fd00:c1::/32",  # Oracle Cloud metadata
    "fd00:ec2::/32",  # AWS metadata
    "fd20:ce::254/128",  # Google Cloud metadata
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
# Not globally routable, yet reachable if listed.
_PRIVATE_V4: Final = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
)
_PRIVATE_V6_IN_GLOBAL_UNICAST: Final = _networks("2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")
_GLOBAL_UNICAST_V6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_LOOPBACK_V4: Final = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_V6: Final = ipaddress.IPv6Address("::1")

_METADATA_NAMES: Final = frozenset(
    {"metadata", "metadata.goog", "metadata.google.internal", "instance-data"}
)
_LOOPBACK_NAMES: Final = frozenset(
    {"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"}
)
# Suffixes that no public name has: such a name leads into a private network.
_PRIVATE_SUFFIXES: Final = (
    ".cluster",
    ".consul",
    ".corp",
    ".default",
    ".docker",
    ".home",
    ".home.arpa",
    ".internal",
    ".intranet",
    ".invalid",
    ".kube-system",
    ".lan",
    ".local",
    ".localdomain",
    ".onion",
    ".private",
    ".svc",
    ".test",
)


class InvalidNetwork(ValueError):
    """An entry of the list of private upstreams cannot be understood."""


class UrlRefused(ValueError):
    """The URL may not be connected to. One text for every reason, so that nothing can be probed."""

    def __init__(self) -> None:
        super().__init__("This URL is not allowed.")


@dataclass(frozen=True, slots=True)
class AllowedNetwork:
    """A private network that the deployment allows upstreams in."""

    network: IPNetwork
    port_first: int = 1
    port_last: int = _PORT_MAX

    def has(self, address: IPAddress, port: int) -> bool:
        """Return whether the address and port lie inside."""
        return address in self.network and self.has_port(port)

    def has_port(self, port: int) -> bool:
        """Return whether the port lies inside."""
        return self.port_first <= port <= self.port_last


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """A URL that may be connected to, in its parts."""

    scheme: str  # "http" or "https"
    host: str  # lower case, without brackets
    port: int
    path: str  # without a trailing slash; "" for the root; {model} stands for a model's name
    query: str  # without "?"
    address: IPAddress | None  # when the host is a literal address
    is_private_only: bool  # plain http: every address must be a listed private one

    @property
    def target(self) -> str:
        """Return path and query, as a request names them."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def origin(self) -> str:
        """Return scheme, host and port, the latter if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


_ENTRY: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<v4>[0-9.]+))"
    r"(?:/(?P<prefix>[0-9]{1,3}))?"
    r"(?::(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?",
    re.ASCII,
)


def parse_private_upstreams(text: str) -> tuple[AllowedNetwork, ...]:
    """Return the networks of a list such as "127.0.0.0/8, 10.0.5.7:11434, [fd00::]/8:80-90".

    Raises InvalidNetwork for anything else and for host bits in a network. Listing a network does
    not open the metadata addresses in it.
    """
    entries = [entry.strip() for entry in text.split(",")]
    if len(entries) > _NETWORKS_MAX:
        raise InvalidNetwork(f"More than {_NETWORKS_MAX} private networks.")
    return tuple(_parse_entry(entry) for entry in entries if entry)


def _parse_entry(entry: str) -> AllowedNetwork:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise InvalidNetwork(f"{entry!r} is no network; write 10.0.5.7:11434 or [fd00::]/8:80-90.")
    address = match["v6"] or match["v4"]
    try:
        network = ipaddress.ip_network(
            f"{address}/{match['prefix']}" if match["prefix"] else address
        )
    except ValueError as error:
        raise InvalidNetwork(f"{entry!r} is no network: {error}.") from error
    if (network.version == 6) != (match["v6"] is not None):
        raise InvalidNetwork(f"{entry!r}: only IPv6 goes in brackets.")
    if network.prefixlen == 0:
        raise InvalidNetwork(f"{entry!r} allows every address there is.")
    if match["first"] is None:
        return AllowedNetwork(network)
    first = int(match["first"])
    last = int(match["last"] or first)
    if not 1 <= first <= last <= _PORT_MAX:
        raise InvalidNetwork(f"{entry!r} has no valid ports.")
    return AllowedNetwork(network, first, last)


def is_address_allowed(
    ip: IPAddress | str,
    port: int,
    private: tuple[AllowedNetwork, ...],
    *,
    is_private_only: bool = False,
) -> bool:
    """Return whether the gateway may connect to this very address.

    With `is_private_only` (plain http) public addresses are refused too.
    """
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if not 1 <= port <= _PORT_MAX:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            # A public IPv4 host as seen from an IPv6-only network; a private one is no use there.
            embedded = ipaddress.IPv4Address(address.packed[-4:])
            return not is_private_only and not _is_never(embedded) and _is_public(embedded)
        elif address in _V4_COMPATIBLE and address != _LOOPBACK_V6:
            return False
    if _is_never(address):
        return False
    if any(allowed.has(address, port) for allowed in private):
        return True
    return not is_private_only and _is_public(address)


def _is_never(address: IPAddress) -> bool:
    return any(address in network for network in _NEVER)


def _is_public(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in network for network in _PRIVATE_V4)
    return address in _GLOBAL_UNICAST_V6 and not any(
        address in network for network in _PRIVATE_V6_IN_GLOBAL_UNICAST
    )


_URL: Final = re.compile(
    r"(?P<scheme>[hH][tT][tT][pP][sS]?)://"
    r"(?:\[(?P<v6>[0-9a-fA-F:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/(?:[A-Za-z0-9._~!$&'()*+,;=:@%/-]|\{model\})*)?"
    r"(?:\?(?P<query>[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*))?",
    re.ASCII,
)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# What inet_aton would read as a number, so that 127.1, 0x7f.1 and 2130706433 reach loopback.
_NUMERIC_LABEL: Final = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_DOT_SEGMENT: Final = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_BAD_ESCAPE: Final = re.compile(r"%(?![2-7][0-9a-f])|%(?:2f|5c|7f)", re.IGNORECASE)


def check_upstream_url(url: str, private: tuple[AllowedNetwork, ...]) -> ParsedUrl:
    """Return the parts of a URL that upstream calls may go to.

    Raises UrlRefused, with one text, for everything else. A name is not resolved here: each of
    its addresses must pass `is_address_allowed` when connecting.
    """
    match = _URL.fullmatch(url) if len(url) <= _URL_LENGTH_MAX else None
    if match is None:
        raise UrlRefused
    path = match["path"] or ""
    query = match["query"] or ""
    if _DOT_SEGMENT.search(path) or "//" in path or _BAD_ESCAPE.search(path + query):
        raise UrlRefused
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[scheme]
    is_private_only = scheme == "http"
    host = (match["v6"] or match["name"]).lower()
    address = _literal_address(host, is_bracketed=match["v6"] is not None)
    if address is not None:
        if not is_address_allowed(address, port, private, is_private_only=is_private_only):
            raise UrlRefused
        host = str(address)
    elif not _is_name_allowed(host, port, private, is_private_only=is_private_only):
        raise UrlRefused
    return ParsedUrl(
        scheme=scheme,
        host=host,
        port=port,
        path=path.rstrip("/"),
        query=query,
        address=address,
        is_private_only=is_private_only,
    )


def _literal_address(host: str, *, is_bracketed: bool) -> IPAddress | None:
    """Return the address a host spells, None for a name; odd spellings raise UrlRefused."""
    try:
        if is_bracketed:
            return ipaddress.IPv6Address(host)
        if _NUMERIC_LABEL.fullmatch(host.rsplit(".", 1)[-1]):
            return ipaddress.IPv4Address(host)
    except ValueError as error:
        raise UrlRefused from error
    return None


def _is_name_allowed(
    name: str, port: int, private: tuple[AllowedNetwork, ...], *, is_private_only: bool
) -> bool:
    if not 1 <= port <= _PORT_MAX or len(name) > _HOST_LENGTH_MAX:
        return False
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return False
    if name in _METADATA_NAMES or name.startswith("instance-data."):
        return False
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return any(
            allowed.has_port(port)
            and (
                allowed.network.overlaps(_LOOPBACK_V4)
                if allowed.network.version == 4
                else _LOOPBACK_V6 in allowed.network
            )
            for allowed in private
        )
    if is_private_only or "." not in name or name.endswith(_PRIVATE_SUFFIXES):
        return any(allowed.has_port(port) for allowed in private)
    return True
