"""A run as `bootstrap` leaves it, made by the real commit from rows that look like the web's."""

import hashlib
import random
from dataclasses import dataclass
from io import BytesIO

import pytest
from PIL import Image, ImageDraw

from capfilt.records import Drop, Tally, row_id, table_of
from capfilt.shards.commit import SinkConfig, commit_part, write_manifest
from capfilt.storage import Store

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</style><img src=http://evil.example/x.png onerror=alert(3)>",
    "\"><svg onload=alert(4)> ' onmouseover='alert(5)",
    "<!-- {{ 7 * 7 }} {% raw %} ${7*7} -->",
    "javascript:alert(6)",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 4,
    "صورة قطة صغيرة تجلس على نافذة زرقاء",
    "\u202egnp.tac a cat reading backwards\u202c and on",
    "nul\x00, bell\x07 and\nnew\tline",
    "a long list of keywords, " * 400,
    "猫が窓のそばに座っている 🐈\u200d⬛",
    "   ",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334 algo",
]

_COLOURS = {
    "red": "#c8453c",
    "blue": "#3e6fb5",
    "green": "#4d8f57",
    "yellow": "#e0b93f",
    "white": "#f2efe6",
    "black": "#2a2a2e",
}
_THINGS = ["boat", "house", "tree", "sun", "mountain", "balloon"]
_PLACES = ["by the sea", "on a hill", "in the evening", "under a clear sky", "beside a road"]
_ALTS = [
    "IMG_{n}.jpg",
    "Buy {colour} {thing} online - free shipping! 50% OFF",
    "DSC0{n}",
    "my trip 2014",
    "the bridge near my house",
    "{colour} {thing} | Stock Photo | {n}",
    "Click to enlarge",
]
_LOST = {
    Drop.HTTP_STATUS: "The server answered 404 Not Found.",
    Drop.UNREACHABLE: "No address is known for this host.",
    Drop.TIMED_OUT: "No answer within 10 s, 3 times.",
    Drop.NOT_AN_IMAGE: "The content is an HTML page (text/html).",
    Drop.TOO_SMALL: "1 by 1 px; the shorter side must be 32 px or more.",
    Drop.OPTED_OUT: "X-Robots-Tag: noai",
    Drop.REFUSED_ADDRESS: "<b>10.0.0.1</b> is a private address.",
}


@dataclass(frozen=True)
class Part:
    index: int
    digest: str = "0" * 64


def picture(rng, size=(320, 240), colour="red", thing="house"):
    """A small drawing: sky, ground and a thing."""
    image = Image.new("RGB", size, (150 + rng.randrange(90), 190 + rng.randrange(50), 235))
    draw = ImageDraw.Draw(image)
    w, h = size
    draw.rectangle((0, h * 0.7, w, h), fill=(90 + rng.randrange(90), 130 + rng.randrange(40), 80))
    x, y, r = rng.uniform(0.25, 0.75) * w, 0.55 * h, rng.uniform(0.15, 0.3) * min(w, h)
    fill = _COLOURS[colour]
    if thing in {"tree", "mountain"}:
        draw.polygon([(x, y - 1.6 * r), (x - r, y + r), (x + r, y + r)], fill=fill)
    elif thing in {"sun", "balloon"}:
        draw.ellipse((x - r, y - 2 * r, x + r, y), fill=fill)
    else:
        draw.rectangle((x - r, y - r, x + r, y + r), fill=fill)
        draw.polygon([(x - 1.2 * r, y - r), (x, y - 2 * r), (x + 1.2 * r, y - r)], fill="#7a4a35")
    out = BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()


def _caption(text, origin, itm, threshold):
    kept = itm is None or itm >= threshold
    return {"text": text, "origin": origin, "itm": itm, "itc": None if itm is None else itm - 0.5, "kept": kept}


def _score(rng, *, good):
    return min(0.9999, max(0.0001, rng.betavariate(6, 1.2) if good else rng.betavariate(1.1, 5)))


def rows_like_the_web(count, *, part=0, seed=0, filtered=True, captioned=True, lost=0.3, threshold=0.5):
    """Rows of one part: some lost, some judged, hostile texts among them."""
    rng = random.Random(f"{seed}-{part}")
    rows = []
    for n in range(count):
        colour, thing, place = rng.choice(list(_COLOURS)), rng.choice(_THINGS), rng.choice(_PLACES)
        true = f"A {colour} {thing} {place}"
        fits = rng.random() < 0.45
        alt = true + rng.choice(["", ", photographed in summer", " - old postcard"]) if fits else rng.choice(_ALTS)
        alt = alt.format(colour=colour, thing=thing, n=rng.randrange(10000))
        if n % 9 == 4:
            alt, fits = HOSTILE[(n // 9 + part) % len(HOSTILE)], rng.random() < 0.3
        url = f"https://{rng.choice(['pics', 'img', 'static'])}{rng.randrange(12)}.example.org/{part}/{n}/{thing}.jpg"
        captions = [_caption(alt, "web", _score(rng, good=fits) if filtered else None, threshold)]
        row = {"id": row_id(url, alt), "part": part, "row": n, "url": url, "captions": captions, "drop": None}
        rows.append(row)
        if rng.random() < lost:
            reason = rng.choices(list(_LOST), [9, 7, 4, 3, 2, 1, 1])[0]
            captions[0].update(itm=None, itc=None, kept=False)
            row.update(drop=str(reason), detail=_LOST[reason])
            continue
        if captioned:
            right = rng.random() < 0.75
            made = f"a {colour} {thing} {place}" if right else f"a {rng.choice(list(_COLOURS))} dog on a plate"
            captions.append(_caption(made, "synthetic", _score(rng, good=right) if filtered else None, threshold))
        size = rng.choice([(320, 240), (240, 320), (400, 160), (256, 256)])
        image = picture(rng, size, colour, thing)
        row.update(width=size[0], height=size[1], sha256=hashlib.sha256(image).hexdigest())
        if any(caption["kept"] for caption in captions):
            row.update(image=image)
        else:
            row.update(drop=str(Drop.NO_CAPTION_KEPT), detail="The filter removed every text.")
    return rows


def commit_run(store, parts, *, finish=True, sink=None, threshold=0.5, filtered=True, captioned=True):
    """Commits parts of rows as a run does, and returns the books."""
    recipe = {
        "source": {"path": "corpus.parquet"},
        "capfilt": {
            "captioner": "med-mini/captioner" if captioned else None,
            "filter": "med-mini/filter" if filtered else None,
            "decoding": "nucleus",
            "threshold": threshold,
        },
    }
    books = Tally()
    for index, rows in parts.items():
        books += commit_part(store, table_of(rows), Part(index), sink or SinkConfig()).tally
    if finish:
        source = {"kind": "table", "rows": books.rows}
        write_manifest(store, recipe=recipe, source=source, models={"filter": {"name": "x"}}, parts_planned=len(parts))
    return books


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "dest"))


@pytest.fixture
def web_run(store):
    """Two parts of 110 rows, finished; and its books."""
    return commit_run(store, {part: rows_like_the_web(110, part=part) for part in range(2)})


@pytest.fixture
def kit():
    """The makers above, for tests that need a run of their own."""
    return {"rows": rows_like_the_web, "commit": commit_run, "picture": picture, "hostile": HOSTILE}
