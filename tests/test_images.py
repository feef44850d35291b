"""Any bytes become one upright, bounded RGB picture, or a reason."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import threading
import time
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from capfilt import sniff
from capfilt.errors import DataError
from capfilt.images import ImageLimits, Picture, Refused, decode, extension, normalise
from capfilt.records import Drop

LIMITS = ImageLimits()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def corners(width: int = 96, height: int = 64, mode: str = "RGB") -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image.convert(mode)


def picture(data: bytes, limits: ImageLimits = LIMITS) -> Picture:
    found = normalise(data, limits)
    assert isinstance(found, Picture), found
    assert found.sha256 == hashlib.sha256(found.data).hexdigest()
    image = decode(found.data)
    assert (image.mode, image.size) == ("RGB", (found.width, found.height))
    return found


def colours(data: bytes) -> list[str]:
    """The four corners by name, in reading order."""
    image = decode(data)
    at = [(x * image.width // 4, y * image.height // 4) for y in (1, 3) for x in (1, 3)]
    names = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}
    return [min(names, key=lambda n: np.abs(np.subtract(names[n], image.getpixel(p))).sum()) for p in at]


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> Refused:
    found = normalise(data, limits)
    assert isinstance(found, Refused), found
    return found


@pytest.mark.parametrize(
    ("kind", "mode", "options", "name"),
    [
        ("JPEG", "RGB", {}, "jpg"),
        ("JPEG", "RGB", {"progressive": True}, "jpg"),
        ("JPEG", "L", {}, "jpg"),
        ("PNG", "RGB", {}, "png"),
        ("PNG", "L", {}, "png"),
        ("WEBP", "RGB", {}, "webp"),
        ("WEBP", "RGB", {"lossless": True}, "webp"),
    ],
)
def test_good_pictures_keep_their_bytes(kind, mode, options, name):
    data = encoded(corners(mode=mode), kind, **options)
    assert picture(data).data == data
    assert extension(data) == name


def test_an_srgb_profile_is_no_reason_to_touch_a_picture():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(corners(), icc_profile=profile)
    assert picture(data).data == data


def test_a_broken_profile_is_ignored():
    data = encoded(corners(), icc_profile=b"no profile at all")
    assert picture(data).data == data


def swapped_profile() -> bytes:
    """A valid RGB profile whose red and blue primaries are exchanged: using it turns red to blue."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for at in range(132, 132 + 12 * struct.unpack(">L", data[128:132])[0], 12):
        name = bytes(data[at : at + 4])
        data[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    return bytes(data).replace("sRGB".encode("utf-16-be"), "abcd".encode("utf-16-be")).replace(b"sRGB", b"abcd", 2)


def test_an_embedded_profile_is_turned_into_srgb():
    found = picture(encoded(corners(), "PNG", icc_profile=swapped_profile()))
    assert colours(found.data)[::2] == ["blue", "red"]
    assert b"ICC_PROFILE" not in found.data


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (1, "red green blue white"),
        (2, "green red white blue"),
        (3, "white blue green red"),
        (4, "blue white red green"),
        (5, "red blue green white"),
        (6, "blue red white green"),
        (7, "white green blue red"),
        (8, "green white red blue"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(turn, expected, kind):
    exif = Image.Exif()
    exif[274] = turn
    data = encoded(corners(), kind, exif=exif)
    found = picture(data)
    assert " ".join(colours(found.data)) == expected
    assert (found.width, found.height) == ((96, 64) if turn < 5 else (64, 96))
    assert (found.data == data) == (turn == 1 and kind != "TIFF")
    assert picture(found.data).data == found.data


def test_a_png_whose_rotation_stands_behind_the_pixels_is_turned():
    exif = Image.Exif()
    exif[274] = 6
    before = encoded(corners(), "PNG", exif=exif)
    at = before.index(b"eXIf") - 4
    chunk = before[at : at + 12 + int.from_bytes(before[at : at + 4])]
    end = before.index(b"IEND") - 4
    behind = before[:at] + before[at + len(chunk) : end] + chunk + before[end:]
    assert picture(behind).data == picture(before).data


def test_a_rotated_picture_is_measured_upright_when_downsized():
    exif = Image.Exif()
    exif[274] = 6
    found = picture(encoded(corners(2400, 1600), exif=exif), ImageLimits(max_side=600))
    assert (found.width, found.height) == (400, 600)
    assert colours(found.data) == ["blue", "red", "white", "green"]


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_other_formats_become_jpeg(kind, mode):
    found = picture(encoded(corners(mode=mode), kind))
    assert extension(found.data) == "jpg"
    if mode in ("RGB", "P"):
        assert colours(found.data) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize(("kind", "compression"), [("TIFF", "tiff_lzw"), ("TIFF", "jpeg"), ("TIFF", "tiff_deflate")])
def test_compressed_tiff(kind, compression):
    assert colours(picture(encoded(corners(), kind, compression=compression)).data)[0] == "red"


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    assert colours(picture(encoded(corners(mode="CMYK"), kind)).data) == ["red", "green", "blue", "white"]


def test_sixteen_bit_grey_spans_the_same_range():
    ramp = np.linspace(0, 65535, 96 * 64).reshape(64, 96)
    for data in (
        encoded(Image.fromarray(ramp.astype(np.uint16)), "PNG"),
        encoded(Image.fromarray(ramp.astype(np.uint16)), "TIFF"),
        encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray((ramp / 65535).astype(np.float32)), "TIFF"),
    ):
        grey = np.asarray(decode(picture(data).data))[..., 0]
        assert (grey[0, 0] < 5, grey[-1, -1] > 250) == (True, True)
        assert abs(float(grey.mean()) - 127.5) < 2


def test_float_pictures_of_anything():
    """Not-a-number, infinite and enormous values neither raise nor warn."""
    values = np.zeros((64, 96), np.float32)
    values[:4], values[4:8], values[8:12], values[12:16] = np.nan, np.inf, -3e38, 0.5
    picture(encoded(Image.fromarray(values), "TIFF"))
    values[16:20] = 3e38
    picture(encoded(Image.fromarray(values), "TIFF"))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, 0))
    others = b"".join(chunk(*pair) for pair in extra)
    return b"\x89PNG\r\n\x1a\n" + header + others + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_is_re_encoded():
    row = b"\0" + struct.pack(">HHH", 65535, 0, 0) * 40
    found = picture(png(40, 40, 16, 2, row * 40))
    assert (extension(found.data), colours(found.data)[0]) == ("jpg", "red")


def test_sixteen_bit_colour_with_a_transparent_colour():
    row = b"\0" + struct.pack(">HHH", 65535, 0, 0) * 40
    found = picture(png(40, 40, 16, 2, row * 40, (b"tRNS", struct.pack(">HHH", 1, 2, 3))))
    assert colours(found.data)[0] == "red"


@pytest.mark.parametrize("side", [1024, 40])
def test_transparency_is_laid_on_white(side):
    """Also when the picture is downsized: no dark fringe from what lies beneath full transparency."""
    limits = ImageLimits(max_side=side)
    clear = corners().convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 48, 64))
    palette = corners(mode="P")
    hidden = palette.getpixel((0, 0))
    grey = corners(mode="LA")
    grey.paste((0, 0), (0, 0, 48, 64))
    left = {
        "png": encoded(clear, "PNG"),
        "webp": encoded(clear, "WEBP", lossless=True),
        "tiff": encoded(clear, "TIFF"),
        "grey": encoded(grey, "PNG"),
        "palette": encoded(palette, "PNG", transparency=hidden),
        "palette, bytes": encoded(palette, "PNG", transparency=bytes(0 if n == hidden else 255 for n in range(256))),
        "gif": encoded(palette, "GIF", transparency=hidden),
        "colour": encoded(corners(), "PNG", transparency=RED),
    }
    for name, data in left.items():
        found = picture(data, limits)
        assert colours(found.data)[0] == "white", name
        assert np.asarray(decode(found.data))[: found.height // 2, : found.width // 2 - 3].min() > 235, name


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind):
    frames = [corners(), Image.new("RGB", (96, 64)), Image.new("RGB", (96, 64), "yellow")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    found = picture(data)
    assert extension(found.data) == "jpg"
    assert colours(found.data) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_large_pictures_are_downsized_never_enlarged(kind):
    found = picture(encoded(corners(1500, 1000), kind), ImageLimits(max_side=300))
    assert (found.width, found.height) == (300, 200)
    assert colours(found.data) == ["red", "green", "blue", "white"]
    small = picture(encoded(corners(40, 40), kind))
    assert (small.width, small.height) == (40, 40)


def test_downsizing_a_photograph_is_close_to_the_plain_way():
    noise = np.random.default_rng(0).normal(128, 40, (150, 200, 3)).clip(0, 255).astype(np.uint8)
    large = Image.fromarray(noise).resize((3000, 2250), Image.Resampling.BICUBIC)
    data = encoded(large, quality=95)
    ours = np.asarray(decode(picture(data, ImageLimits(max_side=400)).data).convert("L"), dtype=float)
    plain = Image.open(io.BytesIO(data)).resize((400, 300), Image.Resampling.LANCZOS).convert("L")
    assert np.abs(ours - np.asarray(plain, dtype=float)).mean() < 4


def test_metadata_of_re_encoded_pictures_is_gone():
    exif = Image.Exif()
    exif[274], exif[315] = 3, "the photographer"
    found = picture(encoded(corners(), exif=exif, comment=b"secret note"))
    assert b"photographer" not in found.data
    assert b"secret" not in found.data


@pytest.mark.parametrize(
    ("data", "drop", "word"),
    [
        (b"", Drop.NOT_AN_IMAGE, "empty"),
        (b"\n <!doctype HTML><html>", Drop.NOT_AN_IMAGE, "an HTML page"),
        (b"\xef\xbb\xbf<html><body><svg></svg>", Drop.NOT_AN_IMAGE, "an HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Drop.NOT_AN_IMAGE, "SVG"),
        (b"<?xml version='1.0'?><!-- x --><svg/>", Drop.NOT_AN_IMAGE, "SVG"),
        (b"<?xml version='1.0'?><Error/>", Drop.NOT_AN_IMAGE, "XML"),
        (b'{"error": 1}', Drop.NOT_AN_IMAGE, "JSON"),
        (b"Not found", Drop.NOT_AN_IMAGE, "plain text"),
        (b"%PDF-1.7", Drop.NOT_AN_IMAGE, "PDF"),
        (b"PK\x03\x04", Drop.NOT_AN_IMAGE, "ZIP"),
        (b"\0\0\0\x18ftypheic", Drop.NOT_AN_IMAGE, "HEIC"),
        (b"\0\0\0\x18ftypisom", Drop.NOT_AN_IMAGE, "video"),
        (b"\0\0\1\0\1\0", Drop.NOT_AN_IMAGE, "ICO"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n/showpage", Drop.NOT_AN_IMAGE, "plain text"),
        (bytes(range(256)), Drop.NOT_AN_IMAGE, "no picture format"),
        (b"\xff\xd8\xff", Drop.BROKEN_IMAGE, "JPEG"),
        (b"\x89PNG\r\n\x1a\n", Drop.BROKEN_IMAGE, "PNG"),
        (b"RIFF\0\0\0\0WEBP", Drop.BROKEN_IMAGE, "WEBP"),
        (b"GIF89a", Drop.BROKEN_IMAGE, "GIF"),
        (b"BM", Drop.BROKEN_IMAGE, "BMP"),
        (b"II*\0", Drop.BROKEN_IMAGE, "TIFF"),
    ],
)
def test_what_is_no_picture(data, drop, word):
    found = refusal(data)
    assert (found.drop, word in found.detail) == (drop, True), found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_cut_short_is_broken_however_little_is_missing(kind):
    data = encoded(Image.effect_noise((96, 64), 60).convert("RGB"), kind)
    for share in (0.3, 0.6, 0.9):
        assert refusal(data[: int(len(data) * share)]).drop is Drop.BROKEN_IMAGE, share


def test_limits():
    assert refusal(encoded(corners()), ImageLimits(max_bytes=100)).drop is Drop.TOO_LARGE
    assert refusal(encoded(corners(100, 31))).drop is Drop.TOO_SMALL
    assert refusal(encoded(corners(1, 1))).drop is Drop.TOO_SMALL
    assert refusal(encoded(corners(41 * 32, 64))).drop is Drop.BAD_ASPECT
    assert refusal(encoded(corners()), ImageLimits(max_pixels=6143)).drop is Drop.TOO_MANY_PIXELS
    exact = ImageLimits(max_pixels=6144, min_side=64, max_aspect=1.5, max_side=96)
    assert picture(encoded(corners()), exact).width == 96


def riff(form: bytes, body: bytes) -> bytes:
    chunk = form + struct.pack("<L", len(body)) + body
    return b"RIFF" + struct.pack("<L", 4 + len(chunk)) + b"WEBP" + chunk


def tiff(*tags: tuple[int, int, int, int], tail: int = 0) -> bytes:
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + b"".join(struct.pack("<HHLL", *t) for t in tags) + bytes(tail)


GIF_BOMB = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;"
SIZE = ((256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
TRAPS = {
    "PNG, 20,000 squared": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), Drop.TOO_MANY_PIXELS),
    "PNG, 2^31 squared": (png(2**31 - 1, 2**31 - 1, 8, 2, b""), None),
    "GIF": (GIF_BOMB, Drop.TOO_MANY_PIXELS),
    "WebP, extended": (riff(b"VP8X", bytes(4) + b"\xfe\x3f\0" * 2), Drop.TOO_MANY_PIXELS),
    "WebP, lossless": (riff(b"VP8L", b"\x2f" + struct.pack("<L", 0x0FFFFFFF) + bytes(99)), Drop.TOO_MANY_PIXELS),
    "WebP, lossy": (riff(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + b"\xff\x3f" * 2 + bytes(99)), Drop.TOO_MANY_PIXELS),
    "BMP": (b"BM" + struct.pack("<LLLLLLHHL", 99, 0, 54, 40, 30_000, 30_000, 1, 24, 0) + bytes(99), None),
    "TIFF": (tiff((256, 4, 1, 60_000), (257, 4, 1, 60_000), *SIZE[2:], (273, 4, 1, 8), tail=99), None),
    "TIFF, tiles": (tiff(*SIZE, (322, 4, 1, 65520), (323, 4, 1, 65520), (324, 4, 1, 8), tail=99), Drop.BROKEN_IMAGE),
    "TIFF, strips": (tiff(*SIZE, (273, 4, 900_000, 8), tail=4_000_000), Drop.BROKEN_IMAGE),
    "TIFF, overlapping": (
        tiff(*SIZE, *((tag, 7, 900_000, 8) for tag in range(40_000, 60_000)), tail=10**6),
        Drop.BROKEN_IMAGE,
    ),
    "JPEG, scans": (encoded(corners())[:-2] + b"\xff\xda\0\2" * 10_000, Drop.BROKEN_IMAGE),
    "JPEG, segments": (b"\xff\xd8" + b"\xff\xe5\0\2" * 1_000_000, Drop.BROKEN_IMAGE),
}


@pytest.mark.parametrize("name", TRAPS)
def test_traps_cost_next_to_nothing(name):
    """Sizes are read before anything is decoded."""
    data, drop = TRAPS[name]
    started = time.thread_time()
    found = refusal(data)
    taken = time.thread_time() - started
    tracemalloc.start()  # only now: it takes several times as long as what it watches
    try:
        refusal(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drop is None or found.drop is drop, found
    assert found.drop in (Drop.TOO_MANY_PIXELS, Drop.BROKEN_IMAGE)
    assert taken < 1
    assert peak < 4 * len(data) + 2_000_000


def exif_bomb() -> bytes:
    """Many EXIF segments that join to one directory whose 5,000 entries all claim the same 60,000 bytes."""
    entries = b"".join(struct.pack("<HHLL", tag, 7, 60_000, 8) for tag in range(5_000))
    body = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 5_000) + entries
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return b"\xff\xd8" + segment + encoded(corners())[2:]


def test_an_exif_bomb_is_never_unfolded():
    tracemalloc.start()
    try:
        picture(exif_bomb())
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def originals() -> list[bytes]:
    exif = Image.Exif()
    exif[274] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return [
        encoded(corners(), exif=exif, icc_profile=profile),
        encoded(corners(), progressive=True),
        encoded(corners(mode="CMYK")),
        encoded(corners(), "PNG", exif=exif, icc_profile=profile),
        encoded(corners(mode="P"), "PNG", transparency=bytes(range(256))),
        encoded(corners(), "WEBP", exif=exif),
        encoded(corners().convert("RGBA"), "WEBP", lossless=True),
        encoded(corners(), "GIF", save_all=True, append_images=[Image.new("RGB", (96, 64))]),
        encoded(corners(), "BMP"),
        encoded(corners(mode="P"), "BMP"),
        encoded(corners(), "TIFF", exif=exif),
        encoded(corners(), "TIFF", compression="tiff_lzw"),
    ]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, mostly near the start where headers are; sometimes cut, doubled or spliced."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 2, 5, 20])):
        reach = len(out) if chance.random() < 0.4 else min(len(out), 120)
        at = chance.randrange(6, reach)
        out[at] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    if chance.random() < 0.2:
        del out[chance.randrange(8, len(out)) :]
    if chance.random() < 0.1:
        at = chance.randrange(len(out))
        out[at:at] = out[: chance.randrange(len(out))]
    return bytes(out)


def check_mutated(count: int) -> int:
    chance, pictures = random.Random(7), 0
    # min_side fits what the longest allowed picture is downsized to, so that results are within limits themselves.
    limits = ImageLimits(max_pixels=4_000_000, max_side=256, min_side=8)
    seeds = originals()
    for number in range(count):
        data = mutated(seeds[number % len(seeds)], chance)
        found = normalise(data, limits)
        assert found == normalise(data, limits), "the same bytes give the same outcome"
        if isinstance(found, Picture):
            pictures += 1
            assert max(found.width, found.height) <= 256
            assert decode(found.data).size == (found.width, found.height)
            again = picture(found.data, limits)
            assert again.data == found.data, "a normalised picture stays as it is"
        else:
            assert found.detail.endswith(".")
    return pictures


def test_no_mutation_raises_or_escapes_the_bounds():
    before = list(warnings.filters)
    assert 50 < check_mutated(600) < 600
    assert warnings.filters == before


@pytest.mark.slow
def test_ten_thousand_mutations():
    assert check_mutated(10_000) > 1000


def test_warnings_of_the_decoder_stay_silent_and_filters_as_they_were(capsys):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\x0f\x01\x02\0\xff\xff\0\0\xff\xff\0\0"
    noisy = [encoded(corners(), "PNG", exif=exif), tiff(*SIZE, (305, 2, 90, 9999), (273, 4, 1, 8), tail=4)]
    noisy.append(encoded(corners(mode="P"), "PNG", transparency=bytes(range(256))))
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [normalise(data, LIMITS) for data in noisy * 5]) for _ in range(6)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert caught == []
    assert warnings.filters == before
    assert capsys.readouterr().err == ""


def test_decode_and_extension_refuse_what_was_never_normalised():
    for data in (b"", b"<html>", encoded(corners(), "GIF")):
        with pytest.raises(DataError):
            decode(data)
        with pytest.raises(DataError):
            extension(data)
    with pytest.raises(DataError):
        decode(encoded(corners())[:300])


def test_exif_is_read_without_trusting_it():
    assert sniff.orientation(b"") == 1
    assert sniff.orientation(b"Exif\0\0II*\0\xff\xff\xff\xff") == 1
    for order, value in (("<", 3), (">", 8)):
        head = b"II*\0" if order == "<" else b"MM\0*"
        body = struct.pack(order + "LHHHLHH", 8, 1, 274, 3, 1, value, 0)
        assert sniff.orientation(b"Exif\0\0" + head + body) == value
        assert sniff.orientation(head + body.replace(bytes([value]), b"\x63")) == 1
        long = struct.pack(order + "LHHHLL", 8, 1, 274, 4, 1, value)
        assert sniff.orientation(head + long) == value
        text = struct.pack(order + "LHHHLL", 8, 1, 274, 2, 1, value)
        assert sniff.orientation(head + text) == 1
