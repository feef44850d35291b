"""What each reason and each origin means, in a person's words.

Knows the closed enums of ``records``; a test keeps it complete.
"""

from __future__ import annotations

from capfilt.records import Drop, Origin

FETCH = "fetching"
PICTURE = "the picture"
INPUT = "the input"
FILTER = "the filter"

DROPS: dict[str, tuple[str, str, str]] = {
    Drop.NO_URL: (INPUT, "No address", "The row has no usable URL."),
    Drop.UNREADABLE_ROW: (INPUT, "Unreadable row", "The row, or the member of the tar, could not be read."),
    Drop.REFUSED_ADDRESS: (
        FETCH,
        "Refused address",
        "The URL leads to a private or local address, or is not http(s); it was never contacted.",
    ),
    Drop.UNREACHABLE: (FETCH, "Unreachable", "The host does not exist any more, or refused the connection."),
    Drop.TIMED_OUT: (FETCH, "Timed out", "The host did not answer in time, on any try."),
    Drop.HTTP_STATUS: (FETCH, "Refused by the server", "The server answered with an error, often 404 or 403."),
    Drop.TOO_MANY_REDIRECTS: (FETCH, "Too many redirects", "The server sent us on and on."),
    Drop.OPTED_OUT: (FETCH, "Opted out", "The owner asked not to be used for machine learning."),
    Drop.TOO_LARGE: (PICTURE, "Too large", "More bytes than the limit allows."),
    Drop.NOT_AN_IMAGE: (PICTURE, "Not an image", "A web page, a drawing program's file or something else."),
    Drop.BROKEN_IMAGE: (PICTURE, "Broken image", "It begins as an image but cannot be decoded to the end."),
    Drop.TOO_MANY_PIXELS: (PICTURE, "Too many pixels", "Decoding it would take more memory than allowed."),
    Drop.TOO_SMALL: (PICTURE, "Too small", "The shorter side is under the limit: an icon or a tracking pixel."),
    Drop.BAD_ASPECT: (PICTURE, "Too elongated", "Far longer than wide, or wider than long: a banner or a line."),
    Drop.PLACEHOLDER: (
        PICTURE,
        "Placeholder",
        "Many addresses gave one and the same picture: most likely the note that there is none.",
    ),
    Drop.DUPLICATE: (PICTURE, "Duplicate", "The same picture was already taken from another row."),
    Drop.QUARANTINED: (FILTER, "Quarantined", "A model failed with this picture, and with no other of its batch."),
    Drop.NO_CAPTION_KEPT: (
        FILTER,
        "No caption kept",
        "The picture is fine, but the filter found that none of its texts describes it.",
    ),
}
"""For each reason, in the order of the run: where it happens, its name, and its meaning."""

ORIGINS: dict[str, str] = {
    Origin.WEB: "Web text",
    Origin.SYNTHETIC: "Synthetic caption",
    Origin.HUMAN: "Human caption",
}
"""For each origin: its name."""

PLURALS: dict[str, str] = {
    Origin.WEB: "web texts",
    Origin.SYNTHETIC: "synthetic captions",
    Origin.HUMAN: "human captions",
}
"""For each origin: its name for many, inside a sentence."""

PAPER_NOISE_NUCLEUS = 0.25
"""Share of synthetic captions that the paper's filter removed with nucleus sampling (BLIP, Table 2)."""
PAPER_NOISE_BEAM = 0.19
"""The same with beam search (BLIP, Table 2)."""
PAPER_NOISE_SHARED = 0.08
"""The same with nucleus sampling when captioner and filter share weights (BLIP, Table 3)."""
