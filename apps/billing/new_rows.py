"""The rows a verification reads: the links of each chain that no clean one has seen, or all.

PostgreSQL takes a third of all rows to be new, whatever was verified, and would read whole tables
for a few rows. So it is led from each chain to its new links and from each of them to what belongs
to it: what is under LATERAL with a LIMIT is looked up once for each row, by its index. SQLite looks
up anyway, and knows no LATERAL.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from django.db import connection

from apps.billing.findings import ChainName, one_view, stream

# Of each kind of chain: the table of its links, and what a link is called here.
LINKS: Final[dict[ChainName, tuple[str, str]]] = {
    "account": ("billing_entry", "entry"),
    "incarnation": ("audit_apirequest", "request"),
}
_ALL: Final = """billing_{chain} AS {chain}
    JOIN {table} AS {link} ON {link}.{chain}_id = {chain}.id"""
_NEW: Final = """billing_{chain} AS {chain}
    LEFT JOIN billing_verifiedhead AS verified ON verified.chain = '{chain}'
        AND verified.chain_id = {chain}.id"""
_JOINED: Final = f"""{_NEW}
    JOIN {{table}} AS {{link}} ON {{link}}.{{chain}}_id = {{chain}}.id
        AND {{link}}.sequence > COALESCE(verified.sequence, 0)"""
# One more than there may be: whether the links go on behind their chain's end is seen, too.
_LOOKED_UP: Final = f"""{_NEW}
    CROSS JOIN LATERAL (
        SELECT * FROM {{table}} AS link WHERE link.{{chain}}_id = {{chain}}.id
            AND link.sequence > COALESCE(verified.sequence, 0)
        ORDER BY link.sequence
        LIMIT GREATEST({{chain}}.sequence - COALESCE(verified.sequence, 0), 0) + 1
    ) AS {{link}}"""  # noqa: S608 (constants)
_TRANSACTION_JOINED: Final = "JOIN billing_transaction AS txn ON txn.id = entry.transaction_id"
_TRANSACTION_LOOKED_UP: Final = """CROSS JOIN LATERAL (
        SELECT * FROM billing_transaction AS one WHERE one.id = entry.transaction_id LIMIT 1
    ) AS txn"""

# What a full verification walks in one view of the database, unless one chain alone has more.
SPAN_LINKS: Final = 1_000_000
_ID_MAX: Final = 2**63 - 1
_LENGTHS: Final[dict[ChainName, str]] = {
    chain: f"SELECT id, sequence FROM billing_{chain} ORDER BY id"  # noqa: S608 (constants)
    for chain in LINKS
}

Span = tuple[int, int]  # the ids of chains: above the first, up to the second
EVERYTHING: Final[Span] = (0, _ID_MAX)


def list_spans(chain: ChainName, *, links: int = SPAN_LINKS) -> list[Span]:
    """Return spans of all chains with about so many links each, also of chains that come later."""
    bounds, found = [0], 0
    with one_view():
        for chain_id, sequence in stream(_LENGTHS[chain]):
            found += sequence
            if found >= links:
                bounds.append(chain_id)
                found = 0
    return list(pairwise([*bounds, _ID_MAX]))


def links_of(chain: ChainName, *, is_full: bool) -> str:
    """Return a FROM clause with `chain` itself and its links, as `entry` or `request`."""
    table, link = LINKS[chain]
    source = _ALL if is_full else _LOOKED_UP if _is_led() else _JOINED
    return source.format(chain=chain, table=table, link=link)


def entries_with_transactions(*, is_full: bool) -> str:
    """Return a FROM clause with the links of accounts and with the transaction of each, `txn`."""
    found = _TRANSACTION_LOOKED_UP if _is_led() and not is_full else _TRANSACTION_JOINED
    return f"{links_of('account', is_full=is_full)}\n    {found}"


def _is_led() -> bool:
    return connection.vendor == "postgresql"
