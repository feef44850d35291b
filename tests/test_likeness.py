"""The perceptual hash knows a picture again, and no other."""

from __future__ import annotations

import io
import re
from itertools import combinations

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageDraw

from capfilt.catalog import sample
from capfilt.images import ImageLimits, Picture, normalise
from capfilt.likeness import _COSINES, _small, distance, phash

LIMITS = ImageLimits(min_side=16)
FEW = 8


def jpeg(image: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    """Real pictures of the sample, none twice."""
    found = {}
    for file in sorted((sample() / "images").glob("*.jpg"))[:60]:
        made = normalise(file.read_bytes(), LIMITS)
        if isinstance(made, Picture):
            found[made.phash] = made.data
    return list(found.values())[:40]


def changed(image: Image.Image) -> dict[str, bytes]:
    png = io.BytesIO()
    image.save(png, "PNG")
    exif = Image.Exif()
    exif[274] = 6
    return {
        "quality 40": jpeg(image, quality=40),
        "progressive": jpeg(image, progressive=True),
        "half": jpeg(image.resize((image.width // 2, image.height // 2))),
        "a third": jpeg(image.resize((image.width // 3, image.height // 3)), quality=75),
        "double": jpeg(image.resize((image.width * 2, image.height * 2))),
        "PNG": png.getvalue(),
        "turned and marked so": jpeg(image.transpose(Image.Transpose.ROTATE_90), exif=exif),
    }


def test_the_same_picture_in_other_clothes_differs_in_few_bits(photos):
    far = {}
    for photo in photos:
        before = normalise(photo, LIMITS)
        for name, data in changed(Image.open(io.BytesIO(photo))).items():
            after = normalise(data, LIMITS)
            far[name] = max(far.get(name, 0), distance(before.phash, after.phash))
    assert max(far.values()) <= FEW, far


def test_it_is_the_same_for_every_size_that_is_kept(photos):
    for photo in photos[:10]:
        small = normalise(photo, ImageLimits(max_side=128))
        assert distance(small.phash, normalise(small.data, LIMITS).phash) <= FEW


def test_other_pictures_are_far(photos):
    hashes = [normalise(photo, LIMITS).phash for photo in photos]
    apart = sorted(distance(one, other) for one, other in combinations(hashes, 2))
    assert sum(bits <= FEW for bits in apart) / len(apart) < 0.01
    assert 24 <= apart[len(apart) // 2] <= 36


def test_it_is_sixteen_hex_digits_for_any_picture():
    for size in ((1, 1), (32, 32), (40, 700), (1024, 768)):
        for mode in ("RGB", "L"):
            assert re.fullmatch("[0-9a-f]{16}", phash(Image.new(mode, size, 200)))


def test_distance_counts_bits():
    assert distance("0" * 16, "f" * 16) == 64
    assert distance("8000000000000001", "0" * 16) == 2


def test_it_is_the_hash_of_the_library_that_others_use(photos):
    for photo in photos:
        picture = Image.open(io.BytesIO(photo)).convert("RGB")
        assert phash(picture) == str(imagehash.phash(_small(picture)))


def test_what_cancels_out_in_a_symmetric_picture_is_the_same_on_every_machine():
    """imagehash takes the sign of what rounding leaves of it, which depends on the processor's order of sums."""
    white = Image.new("RGB", (128, 128), "white")
    drawn = [white, white.copy(), white.copy()]
    ImageDraw.Draw(drawn[1]).rectangle((32, 48, 95, 79), fill="blue")
    ImageDraw.Draw(drawn[2]).ellipse((32, 32, 95, 95), fill="red")
    hashes = [phash(each) for each in drawn]
    assert hashes == ["a3c62bd31b7aa6a9", "e825d3002ce683b2", "f1448a8e3c2c72be"]
    # Half of the frequencies of a symmetric picture are none: they are not alike for that.
    assert min(distance(hashes[i], hashes[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 3 * FEW


def test_no_sum_of_the_hash_is_rounded():
    most = 255 * np.abs(_COSINES).sum(axis=1).max() ** 2
    assert most < 2**53
    assert (np.rint(_COSINES) == _COSINES).all()
