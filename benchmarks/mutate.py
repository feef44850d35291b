"""Mutated pictures through the decoder: no exception, no hang, no growth.

    python benchmarks/mutate.py [--count 10000] [--seed 0] [--out FILE]

Real pictures of the bundled sample and drawn ones of every format have bits flipped, bytes changed in their headers,
their ends cut off, their halves exchanged with others' and pieces doubled, and go through ``images.normalise``. A
watchdog ends the run with a traceback when one picture takes longer than it may.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import platform
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import PIL
from PIL import Image, ImageCms

from capfilt.catalog import sample
from capfilt.images import ImageLimits, Picture, normalise

MAY_TAKE_S = 20.0
REAL = 40


def drawn() -> dict[str, bytes]:
    """One picture of each format and kind that a decoder treats apart."""
    base = Image.effect_mandelbrot((160, 120), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    exif = Image.Exif()
    exif[274] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = {"save_all": True, "append_images": [base.rotate(90)]}
    deep = Image.new("I;16", base.size, 30_000)
    kinds = {
        "jpeg": (base, "JPEG", {"exif": exif, "icc_profile": profile}),
        "jpeg progressive": (base, "JPEG", {"progressive": True}),
        "jpeg cmyk": (base.convert("CMYK"), "JPEG", {}),
        "jpeg grey": (base.convert("L"), "JPEG", {}),
        "png": (base, "PNG", {"exif": exif, "icc_profile": profile}),
        "png palette": (base.convert("P"), "PNG", {"transparency": bytes(range(256))}),
        "png 16 bits": (deep, "PNG", {}),
        "png alpha": (base.convert("RGBA"), "PNG", {}),
        "webp": (base, "WEBP", {"exif": exif}),
        "webp lossless": (base.convert("RGBA"), "WEBP", {"lossless": True}),
        "webp animated": (base, "WEBP", frames),
        "gif animated": (base, "GIF", frames),
        "bmp": (base, "BMP", {}),
        "bmp palette": (base.convert("P"), "BMP", {}),
        "tiff": (base, "TIFF", {"exif": exif}),
        "tiff lzw": (base, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (base, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff jpeg": (base, "TIFF", {"compression": "jpeg"}),
    }
    return {f"drawn {name}": encoded(*how) for name, how in kinds.items()}


def encoded(image: Image.Image, kind: str, options: dict) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def real() -> dict[str, bytes]:
    """Pictures of the sample: as they are, and as WebP and GIF."""
    files = [
        f for f in sorted((sample() / "images").iterdir()) if f.suffix in (".jpg", ".png") and "giant" not in f.name
    ]
    found = {}
    for file in files[:: max(1, len(files) // REAL)][:REAL]:
        data = file.read_bytes()
        found[f"real {file.suffix[1:]}: {file.name}"] = data
        if isinstance(normalise(data, ImageLimits()), Picture):
            for kind in ("WEBP", "GIF", "TIFF"):
                found[f"real {kind.lower()}: {file.name}"] = encoded(Image.open(file).convert("RGB"), kind, {})
    return found


def flipped(data: bytearray, chance: random.Random, _: bytes) -> None:
    for _bit in range(chance.choice([1, 3, 30])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def headed(data: bytearray, chance: random.Random, _: bytes) -> None:
    for _byte in range(chance.choice([1, 2, 5, 20])):
        data[chance.randrange(4, min(len(data), 200))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])


def cut(data: bytearray, chance: random.Random, _: bytes) -> None:
    del data[chance.randrange(len(data)) :]


def spliced(data: bytearray, chance: random.Random, other: bytes) -> None:
    data[chance.randrange(len(data)) :] = other[chance.randrange(len(other)) :]


def doubled(data: bytearray, chance: random.Random, _: bytes) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[: chance.randrange(min(len(data), 20_000))] * chance.choice([1, 5])


MUTATIONS: dict[str, Callable[[bytearray, random.Random, bytes], None]] = {
    "bits flipped": flipped,
    "headers edited": headed,
    "cut short": cut,
    "spliced with another": spliced,
    "pieces doubled": doubled,
}


def rss_mb() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def run(count: int, seed: int) -> dict:
    chance, limits = random.Random(seed), ImageLimits(max_side=512)
    seeds = {**drawn(), **real()}
    names = list(seeds)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(":")[0], []).append(name)
    outcomes: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    slowest, memory = (0.0, ""), {}
    marks = {max(1, count * n // 10) for n in (2, 4, 6, 8, 10)}
    for number in range(1, count + 1):
        name, how = chance.choice(groups[chance.choice(list(groups))]), chance.choice(list(MUTATIONS))
        data = bytearray(seeds[name])
        MUTATIONS[how](data, chance, seeds[chance.choice(names)])
        faulthandler.dump_traceback_later(MAY_TAKE_S, exit=True)
        started = time.perf_counter()
        found = normalise(bytes(data), limits)
        taken = time.perf_counter() - started
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, (round(taken, 3), f"{name}, {how}"))
        outcomes["kept" if isinstance(found, Picture) else str(found.drop)] += 1
        formats[name.partition(":")[0]] += 1
        if number in marks:
            memory[str(number)] = round(rss_mb(), 1)
    return {
        "pictures": count,
        "seed": seed,
        "originals": len(seeds),
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "exceptions": 0,  # one would have ended the run
        "slowest_s": slowest[0],
        "slowest": slowest[1],
        "rss_mb_after": memory,
        "outcomes": dict(outcomes.most_common()),
        "by_format": dict(sorted(formats.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(run(options.count, options.seed), indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
