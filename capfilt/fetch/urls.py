"""A stranger's text as a web address, and where an answer redirects to. Knows no connections."""

from __future__ import annotations

import re

from yarl import URL

from capfilt.images import Refused
from capfilt.records import Drop

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?|[0-9a-f:.]+(%.*)?", re.IGNORECASE)

_NO_ADDRESS = (ValueError, IndexError)
"""What yarl raises; the second of brackets before an empty host."""


def parse(url: str) -> URL | Refused:
    """A text as a web address without credentials and fragment, or why it is none. Echoes nothing of it."""
    try:
        address = URL(url.strip())
    except _NO_ADDRESS:
        return Refused(Drop.NO_URL, "The text is no valid web address.")
    if not address.scheme:
        return Refused(Drop.NO_URL, "The text is no web address: it does not begin with http:// or https://.")
    if address.scheme not in ("http", "https"):
        return Refused(Drop.REFUSED_ADDRESS, "The address is neither http nor https; nothing else is fetched.")
    if not address.raw_host or not _HOST.fullmatch(address.raw_host):
        return Refused(Drop.NO_URL, "The web address names no valid host.")
    return address.with_user(None).with_fragment(None)


def target(host: str, address: URL, location: str) -> URL | Refused:
    """Where a redirect leads, judged as every address is; ``host`` is who sent it, as the ledger shows it."""
    try:
        found = parse(str(address.join(URL(location.strip()))))
    except _NO_ADDRESS:
        return Refused(Drop.UNREACHABLE, f"{host} redirects to something that is no web address.")
    if isinstance(found, Refused) and found.drop is Drop.NO_URL:
        return Refused(Drop.UNREACHABLE, f"{host} redirects to something that is no web address.")
    return found
