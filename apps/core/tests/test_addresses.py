import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.addresses import (
    AllowedNetwork,
    InvalidNetwork,
    ParsedUrl,
    UrlRefused,
    check_upstream_url,
    is_address_allowed,
    parse_private_upstreams,
)
from tests.support.cases import for_all

LOOPBACK = parse_private_upstreams("127.0.0.0/8, [::1]")
EVERYTHING = parse_private_upstreams(
    "0.0.0.0/1, 128.0.0.0/1, [::]/1, [8000::]/1, 169.254.0.0/16, 168.63.129.16, [fd00::]/8"
)


def test_a_list_of_networks_with_and_without_ports_is_read() -> None:
    text = "127.0.0.0/8, 10.0.5.7:11434, [fd00::]/8:8080,10.1.0.0/16:80-90, [::1],"

    assert parse_private_upstreams(text) == (
        AllowedNetwork(ipaddress.ip_network("127.0.0.0/8"), 1, 65_535),
        AllowedNetwork(ipaddress.ip_network("10.0.5.7/32"), 11_434, 11_434),
        AllowedNetwork(ipaddress.ip_network("fd00::/8"), 8_080, 8_080),
        AllowedNetwork(ipaddress.ip_network("10.1.0.0/16"), 80, 90),
        AllowedNetwork(ipaddress.ip_network("::1/128"), 1, 65_535),
    )
    assert parse_private_upstreams("") == ()


@for_all(
    "text",
    [
        "localhost",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/8:0",
        "10.0.0.0/8:65536",
        "10.0.0.0/8:90-80",
        "10.0.0.0/8:80-",
        "fd00::/8",
        "[10.0.0.0]/8",
        "0.0.0.0/0",
        "[::]/0",
        "127.1",
        "10.0.0.0/8 10.1.0.0/16",
        "10.0.0.0/8;",
    ],
)
def test_an_entry_that_is_no_network_stops_with_its_text(text: str) -> None:
    with pytest.raises(InvalidNetwork, match=r"network|address|brackets|ports"):
        parse_private_upstreams(text)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "104.18.7.192",
        "2606:4700::6812:7c0",
        "2a00:1450:4001::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_a_public_address_is_allowed_over_tls_only(address: str) -> None:
    assert is_address_allowed(address, 443, ())
    assert is_address_allowed(ipaddress.ip_address(address), 443, ())
    assert not is_address_allowed(address, 80, (), is_private_only=True)


@for_all(
    "address",
    [
        "0.0.0.0",  # noqa: S104  # an address to refuse, not to bind to
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:7f00:1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd12:3456::1",
        "4000::1",
        "5f00::1",
        "not an address",
        "127.1",
        "0177.0.0.1",
        "",
    ],
)
def test_what_is_not_globally_routable_is_refused_by_default(address: str) -> None:
    assert not is_address_allowed(address, 443, ())


@for_all(
    "address",
    [
        "0.0.0.0",  # noqa: S104  # an address to refuse, not to bind to
        "0.1.2.3",
        "100.100.100.200",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "192.0.0.192",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::127.0.0.1",
        "::10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::ffff:168.63.129.16",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a9fe:a9fe",
        "2001::1",
        "2002:a9fe:a9fe::1",
        "2002:7f00:1::",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd00:c1::a9fe:a9fe",
        "fd20:ce::254",
        "fe80::1",
        "fe80::1%eth0",
        "fe80::a9fe:a9fe",
        "fec0::1",
        "ff02::1",
        "2606:4700::1%1",
    ],
)
def test_metadata_wrapped_and_multicast_addresses_are_refused_even_if_listed(address: str) -> None:
    assert not is_address_allowed(address, 443, EVERYTHING)


def test_a_private_address_needs_its_network_and_its_port_on_the_list() -> None:
    private = parse_private_upstreams("10.0.5.7:11434, 10.1.0.0/16:80-90, [fd00::]/8:8080")

    assert is_address_allowed("10.0.5.7", 11_434, private)
    assert is_address_allowed("10.0.5.7", 11_434, private, is_private_only=True)
    assert is_address_allowed("::ffff:10.0.5.7", 11_434, private)
    assert is_address_allowed("10.1.255.255", 90, private)
    assert is_address_allowed("fd12::1", 8_080, private)
    assert not is_address_allowed("10.0.5.7", 22, private)
    assert not is_address_allowed("10.0.5.8", 11_434, private)
    assert not is_address_allowed("10.1.0.1", 91, private)
    assert not is_address_allowed("fd12::1", 8_081, private)


@pytest.mark.parametrize("port", [-1, 0, 65_536])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    assert not is_address_allowed("8.8.8.8", port, ())


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_reached_by_default(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    wraps_another = str(address).startswith(("::ffff:", "64:ff9b::"))
    if not wraps_another and (address.is_private or address.is_multicast or address.is_reserved):
        assert not is_address_allowed(address, 443, ())


def test_the_parts_of_a_public_url_are_returned() -> None:
    url = check_upstream_url("https://API.Example.com/openai/v1/?api-version=2026-01-01", ())

    assert url == ParsedUrl(
        scheme="https",
        host="api.example.com",
        port=443,
        path="/openai/v1",
        query="api-version=2026-01-01",
        address=None,
        is_private_only=False,
    )
    assert url.origin == "https://api.example.com"


def test_the_origin_of_a_literal_address_keeps_brackets_and_port() -> None:
    url = check_upstream_url("http://[0:0::1]:8001/v1", LOOPBACK)

    assert url.origin == "http://[::1]:8001"
    assert url.address == ipaddress.ip_address("::1")
    assert url.is_private_only


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "https://api.openai.com",
        "https://api.openai.com:8443/v1/",
        "https://8.8.8.8/v1",
        "https://[2606:4700::6812:7c0]/v1",
        "https://xn--bcher-kva.example.org",
        "https://my_host.example.org/a%20b",
    ],
)
def test_public_urls_need_no_list(url: str) -> None:
    assert check_upstream_url(url, ()).scheme == "https"


REFUSED = [
    "http://api.openai.com/v1",
    "http://8.8.8.8/v1",
    "ftp://example.com",
    "gopher://example.com",
    "file:///etc/passwd",
    "http+unix://%2ftmp%2fsocket",
    "data:text/plain,hello",
    "//example.com",
    "example.com",
    "https:example.com",
    "https:/example.com",
    "https://",
    "https:///v1",
    "https://user@example.com",
    "https://user:password@example.com",
    "https://good@127.0.0.1",
    "https://127.0.0.1#@good.example",
    "https://example.com#fragment",
    "https://good.example\\@127.0.0.1",
    "https://good.example%00.127.0.0.1",
    "https://ex%61mple.com",
    " https://example.com",
    "https://example.com ",
    "https://exa\tmple.com",
    "https://example.com/\r\nhost: a",
    "https://example.com\n",
    "https://example.com:0",
    "https://example.com:99999",
    "https://example.com:-1",
    "https://example.com:",
    "https://example.com/../admin",
    "https://example.com/v1/..",
    "https://example.com/%2e%2E/admin",
    "https://example.com/./v1",
    "https://example.com//v1",
    "https://example.com/%00",
    "https://example.com/a%2fb",
    "https://example.com/%zz",
    "https://example.com/日",
    "https://bücher.example",
    "https://example..com",
    "https://.example.com",
    "https://example.com.",
    "https://-example.com",
    "https://127.0.0.1",
    "https://127.1",
    "https://127.0.1",
    "https://2130706433",
    "https://0x7f.1",
    "https://0x7f000001",
    "https://0177.0.0.1",
    "https://0",
    "https://0x",
    "https://1.2.3.4.5",
    "https://256.1.1.1",
    "https://\u2460\u2461\u2466.0.0.1",
    "https://127\u30020\u30020\u30021",
    "https://\uff11\uff12\uff17.0.0.1",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]",
    "https://[::ffff:7f00:1]",
    "https://[::ffff:169.254.169.254]",
    "https://[fd00:ec2::254]",
    "https://[fe80::1%25eth0]",
    "https://[127.0.0.1]",
    "https://[::1",
    "https://64:ff9b::1",
    "https://[64:ff9b::a9fe:a9fe]",
    "https://localhost",
    "https://LOCALHOST",
    "https://localhost.",
    "https://api.localhost",
    "https://localhost.localdomain",
    "https://ip6-localhost",
    "https://metadata.google.internal",
    "https://metadata",
    "https://kubernetes.default",
    "https://kubernetes",
    "https://printer.local",
    "https://db.internal",
    "https://" + "a" * 64 + ".com",
    "https://example.com/" + "a" * 2_048,
]


@for_all("url", REFUSED)
def test_every_other_url_is_refused_with_one_text(url: str) -> None:
    with pytest.raises(UrlRefused) as refusal:
        check_upstream_url(url, ())

    assert str(refusal.value) == "This URL is not allowed."


def test_a_listed_private_upstream_may_speak_plain_http() -> None:
    private = parse_private_upstreams("10.0.5.7:11434")

    assert check_upstream_url("http://10.0.5.7:11434/v1", private).is_private_only
    assert check_upstream_url("http://ollama:11434/v1", private).is_private_only
    for refused in (
        "http://10.0.5.7:22",
        "http://10.0.5.8:11434",
        "http://ollama",
        "http://8.8.8.8:11434",
    ):
        with pytest.raises(UrlRefused):
            check_upstream_url(refused, private)


def test_localhost_needs_a_listed_loopback_network() -> None:
    elsewhere = parse_private_upstreams("10.0.0.0/8, [fd00::]/8")

    assert check_upstream_url("http://localhost:8001/v1", LOOPBACK).host == "localhost"
    assert check_upstream_url("http://127.0.0.1:8001/v1", LOOPBACK).port == 8_001
    with pytest.raises(UrlRefused):
        check_upstream_url("http://localhost:8001/v1", elsewhere)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254",
        "http://metadata.google.internal",
        "http://metadata",
        "http://instance-data.ec2.internal",
        "http://[::ffff:a9fe:a9fe]",
        "http://2130706433",
        "http://127.1",
    ],
)
def test_metadata_and_odd_spellings_are_refused_even_if_everything_is_listed(url: str) -> None:
    with pytest.raises(UrlRefused):
        check_upstream_url(url, EVERYTHING)
