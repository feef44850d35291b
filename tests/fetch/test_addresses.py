"""Which addresses are public, in every spelling."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from capfilt.fetch.addresses import Gate, RefusedAddressError, is_public, literal


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "93.184.216.34",
        "172.32.0.1",
        "100.128.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ],
)
def test_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.255",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.251",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "100::1",
        "4000::1",
        "a.name",
    ],
)
def test_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("host", ["example.com", "0x.example", "1.2.3.com", "localhost", "a.1", "0xg.1"])
def test_names_are_no_addresses(host):
    assert literal(host) is None


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "0177.0.0.1", "127.1", "0", "1.2.3.4.5", "256.1.1.1"])
def test_odd_spellings_are_refused_whatever_they_mean(host):
    with pytest.raises(RefusedAddressError):
        literal(host)


def test_plain_spellings_are_read():
    assert str(literal("[::1]")) == "::1"
    assert str(literal("127.0.0.1.")) == "127.0.0.1"


def test_the_gate_opens_what_is_named_also_when_mapped():
    gate = Gate((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8")))
    for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "[fd00::1]", "8.8.8.8", "example.com"):
        gate.check_host(host)
    for host in ("10.0.0.1", "[::1]", "[fe80::1]", "2130706433"):
        with pytest.raises(RefusedAddressError):
            gate.check_host(host)


def test_the_socket_itself_is_not_made_for_a_closed_address():
    """The last check, should a resolver or a parser ever be fooled."""
    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.1", 80))
    with pytest.raises(RefusedAddressError):
        Gate().make_socket(info)
    Gate((ipaddress.ip_network("10.0.0.0/8"),)).make_socket(info).close()
