"""Which internet addresses may be spoken to, decided on the address that is really used.

A URL from a stranger's table must not reach the network the worker stands in: private hosts, cloud metadata, the
worker itself. Names are resolved here and filtered before aiohttp connects; hosts that are addresses, however
spelled, are read here; and a last check stands where the socket is made, so that nothing slips between.

Knows addresses and aiohttp's resolver; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from concurrent.futures import Executor
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a cloud metadata address", ("169.254.169.254/32", "168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::254/128")),
    ("a loopback address", ("127.0.0.0/8", "::1/128")),
    ("an address of this host or network", ("0.0.0.0/8", "::/128")),
    ("a private address", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("a carrier-private address", ("100.64.0.0/10",)),
    ("a link-local address", ("169.254.0.0/16", "fe80::/10")),
    ("a multicast address", ("224.0.0.0/4", "ff00::/8")),
    ("a reserved address", ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4")),
    ("an address for documentation", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")),
    ("a reserved address", ("64:ff9b:1::/48", "100::/64", "2001::/23", "3fff::/20", "5f00::/16")),
)
_BLOCKED = tuple((kind, ipaddress.ip_network(cidr)) for kind, cidrs in _KINDS for cidr in cidrs)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_GLOBAL6 = ipaddress.IPv6Network("2000::/3")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)


class RefusedAddressError(Exception):
    """A name or address that must not be spoken to; its text is a sentence for the ledger."""


def unwrapped(address: Address) -> Address:
    """The IPv4 address within a mapped, compatible, NAT64 or 6to4 IPv6 address; else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and (address in _NAT64 or (address in _COMPATIBLE and int(address) > 1)):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


def kind_of(address: Address) -> str | None:
    """What a non-public address is, as "a loopback address"; None if it is public."""
    real = unwrapped(address)
    for kind, network in _BLOCKED:
        if real in network:
            return kind
    if isinstance(real, ipaddress.IPv6Address) and real not in _GLOBAL6:
        return "an address outside the public range"
    # The standard library's own list, in case it knows a range that the table above does not.
    return None if real.is_global and not real.is_multicast else "a reserved address"


def is_public(address: str | Address) -> bool:
    """Whether an address is one of the open internet. Texts that are no address are not."""
    try:
        return kind_of(ipaddress.ip_address(address)) is None
    except ValueError:
        return False


def literal(host: str) -> Address | None:
    """The address a host *is*, read as the system would read it; None for a name.

    Raises:
        RefusedAddressError: a spelling that no honest URL has (``0x7f.1``, ``2130706433``, ``127.1``).
    """
    bare = host.strip("[]").rstrip(".").partition("%")[0]
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    if not bare or not all(_NUMBER.fullmatch(label) for label in bare.split(".")):
        return None
    try:
        meant = ipaddress.IPv4Address(socket.inet_aton(bare))
    except OSError:
        raise RefusedAddressError(f"The host {shown(host)} is a number that is no address.") from None
    raise RefusedAddressError(f"The host {shown(host)} is an odd spelling of the address {meant}.")


def shown(host: str) -> str:
    """A host as the ledger shows it: at most 100 characters."""
    return host if len(host) <= 100 else host[:97] + "..."


class Gate:
    """Decides which addresses are open.

    Args:
        opened: networks that are open though they are not public.
    """

    def __init__(self, opened: tuple[Network, ...] = ()) -> None:
        self._opened = opened

    def refusal(self, address: Address) -> str | None:
        """What the address is, if it may not be spoken to."""
        real = unwrapped(address)
        if any(real in network or address in network for network in self._opened):
            return None
        return kind_of(address)

    def check_host(self, host: str) -> None:
        """Passes names and open addresses.

        Raises:
            RefusedAddressError: the host is an address that is not open, or an odd spelling of one.
        """
        address = literal(host)
        kind = self.refusal(address) if address is not None else None
        if kind is not None:
            raise RefusedAddressError(f"The host {shown(host)} is {kind}.")

    def make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """aiohttp's socket factory: the last check, on the very address that is connected to."""
        family, type_, proto, _, place = info
        if self.refusal(ipaddress.ip_address(str(place[0]).partition("%")[0])) is not None:
            raise RefusedAddressError("The host has an address that is not open.")
        return socket.socket(family=family, type=type_, proto=proto)


class GuardedResolver(AbstractResolver):
    """Resolves names and lets only open addresses through, so what is checked is what is connected to.

    Args:
        gate: which addresses are open.
        pool: threads for the system's resolver, which blocks.
    """

    def __init__(self, gate: Gate, pool: Executor) -> None:
        self._gate = gate
        self._pool = pool

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The open addresses of a name.

        Raises:
            RefusedAddressError: the name has addresses, and none of them is open.
            OSError: the name cannot be resolved.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, _look_up, host, port, family)
        kinds = {place: self._gate.refusal(ipaddress.ip_address(place.partition("%")[0])) for _, place in found}
        results = [_result(host, port, *pair) for pair in found if kinds[pair[1]] is None]
        if not results:
            place, kind = next(iter(kinds.items()))
            raise RefusedAddressError(f"The name {shown(host)} stands for {place}, {kind}.")
        return results

    async def close(self) -> None:
        """Nothing to close: the pool belongs to the caller."""


def _look_up(host: str, port: int, family: int) -> list[tuple[int, str]]:
    try:
        infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # labels too long or empty
        raise socket.gaierror(socket.EAI_NONAME, "not a name") from error
    found = [(int(info[0]), str(info[4][0])) for info in infos if info[0] in (socket.AF_INET, socket.AF_INET6)]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    return found


def _result(host: str, port: int, family: int, place: str) -> ResolveResult:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=place, port=port, family=family, proto=0, flags=flags)
