"""Which stored addresses lie in a network, as conditions on their text. Pure.

Addresses are stored as Python writes them: IPv4 as a dotted quad, IPv6 in lower case with its
longest run of zeros as `::`, IPv4 inside IPv6 as plain IPv4. Neither database that we support
compares such a text with a network by itself, and sifting rows after they were read would tear
holes into pages; so a network becomes a prefix and, where its boundary cuts a number in two, a
regular expression made of numbers only.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_ANY_GROUP: Final = "[0-9a-f]{1,4}"
_GROUPS: Final = 8
_HEX: Final = "0123456789abcdef"
_ANY_DIGITS: Final = ("", "[0-9a-f]", "[0-9a-f]{2}", "[0-9a-f]{3}")  # by their number


@dataclass(frozen=True, slots=True)
class TextCondition:
    """What the text of an address must be. Empty parts demand nothing; all others must hold."""

    exact: str = ""
    prefix: str = ""
    pattern: str = ""  # a regular expression that Python and PostgreSQL read alike


def parse_network(text: str) -> Network:
    """Return the network that an address or a network stands for. Raises ValueError."""
    if "%" in text:
        raise ValueError("An address with a zone is not stored.")
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        low = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((low, network.prefixlen - _MAPPED.prefixlen))
    return network


def condition_of(network: Network) -> TextCondition:
    """Return what the texts of exactly the addresses in this network have in common."""
    if network.prefixlen == network.max_prefixlen:
        return TextCondition(exact=str(network.network_address))
    if isinstance(network, ipaddress.IPv4Network):
        return _condition_of_ipv4(network)
    return TextCondition(pattern=_pattern_of_ipv6(network))


def _condition_of_ipv4(network: ipaddress.IPv4Network) -> TextCondition:
    whole, bits = divmod(network.prefixlen, 8)
    octets = list(network.network_address.packed)
    prefix = "".join(f"{octet}." for octet in octets[:whole])
    if not bits:
        # The widest network is all of IPv4: a text that begins with a number and a dot.
        return TextCondition(prefix=prefix, pattern="" if prefix else "^[0-9]+[.]")
    first = octets[whole]
    cut = "|".join(str(octet) for octet in range(first, first + 2 ** (8 - bits)))  # at most 128
    end = "$" if whole == 3 else "[.]"
    return TextCondition(prefix=prefix, pattern=f"^{prefix.replace('.', '[.]')}(?:{cut}){end}")


def _pattern_of_ipv6(network: ipaddress.IPv6Network) -> str:
    """Return one alternative for each place in which `::` can stand (28), and one without it."""
    packed = network.network_address.packed
    values = [int.from_bytes(packed[i : i + 2], "big") for i in range(0, 16, 2)]
    whole, bits = divmod(network.prefixlen, 16)
    groups = [f"{value:x}" for value in values[:whole]]
    if bits:
        groups.append(_cut_group(values[whole], bits))
    groups += [_ANY_GROUP] * (_GROUPS - len(groups))
    # A network's own address has zeros in all that it leaves open, so `values` says of each group
    # whether it may be one that `::` stands for.
    forms = [":".join(groups)]
    for before in range(_GROUPS - 1):
        for after in range(_GROUPS - 1 - before):
            if not any(values[before : _GROUPS - after]):
                tail = groups[_GROUPS - after :] if after else []
                forms.append(f"{':'.join(groups[:before])}::{':'.join(tail)}")
    return f"^(?:{'|'.join(forms)})$"


def _cut_group(value: int, bits: int) -> str:
    """Return what the hexadecimal group looks like whose first `bits` (1 to 15) bits are given.

    Groups are written without leading zeros, so that their length says something too.
    """
    digits = f"{value:04x}"
    whole, rest = divmod(bits, 4)
    free = 3 - whole  # digits after the one that the boundary cuts
    low = int(digits[whole], 16)
    choices = _HEX[low : low + 2 ** (4 - rest)]
    fixed = digits[:whole]
    if fixed.strip("0"):
        return f"{fixed.lstrip('0')}[{choices}]" + _ANY_DIGITS[free]
    if "0" not in choices:
        return f"[{choices}]" + _ANY_DIGITS[free]
    shorter = f"[0-9a-f]{{1,{free}}}" if free else "0"
    if choices == "0":
        return shorter
    return f"(?:[{choices.lstrip('0')}]{_ANY_DIGITS[free]}|{shorter})"
