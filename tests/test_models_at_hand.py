"""Pictures as a user has them, in the captioner and the filter: read alike, and each mistake told with its place."""

import io

import numpy as np
import pytest
from PIL import Image

import capfilt
from capfilt import Score
from capfilt.api.models import Captioner, Filter
from capfilt.errors import DataError, ModelError, RecipeError, SourceError
from capfilt.images import ImageLimits
from capfilt.roles import Writing


class Colours:
    """A captioner and a filter that tell what they are shown: the size and the first and last pixels."""

    image_size = None

    def __init__(self, writing=None, lose=0):
        self.writing, self.lose, self.asked = writing, lose, []

    def picture_bytes(self, count):
        return None

    def write(self, pictures, seeds):
        rows = zip(pictures, seeds, strict=True)
        return [[f"{p.size} {p.getpixel((0, 0))}" for _ in row] for p, row in rows][self.lose :]

    def score(self, pictures, texts):
        self.asked += [(picture.size[0], *row) for picture, row in zip(pictures, texts, strict=True)]
        return [[Score(0.5, 0.1) for _ in row] for row in texts][self.lose :]


class Shown(Colours):
    """Keeps the pixels."""

    def write(self, pictures, seeds):
        self.asked += [np.asarray(picture).copy() for picture in pictures]
        return super().write(pictures, seeds)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(width=40, height=24):
    across = np.linspace(0, 255, width, dtype=np.uint8)[None, :].repeat(height, 0)
    return Image.fromarray(np.stack([across, across[:, ::-1], across // 2], -1))


def holed(image):
    """Transparent in its left half, where black stands under the glass, as editors write it."""
    pixels = np.dstack([np.asarray(image), np.full(image.size[::-1], 255, np.uint8)])
    pixels[:, : image.width // 2] = 0
    return Image.fromarray(pixels)


def turned(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


def deep():
    return Image.fromarray(np.asarray(gradient().convert("L")).astype(np.uint16) * 257)


FILES = {
    "jpeg": lambda: encoded(gradient(), "JPEG"),
    "png": lambda: encoded(gradient(), "PNG"),
    "rgba": lambda: encoded(holed(gradient()), "PNG"),
    "grey with alpha": lambda: encoded(holed(gradient()).convert("LA"), "PNG"),
    "palette with transparency": lambda: encoded(holed(gradient()).quantize(32), "PNG"),
    "gif": lambda: encoded(gradient().quantize(32), "GIF"),
    "16-bit grey": lambda: encoded(deep(), "PNG"),
    "float": lambda: encoded(Image.fromarray(np.asarray(gradient().convert("L"), np.float32) / 255), "TIFF"),
    "cmyk": lambda: encoded(gradient().convert("CMYK"), "JPEG"),
    "turned jpeg": lambda: encoded(gradient(), "JPEG", exif=turned(6)),
    "turned png": lambda: encoded(gradient(), "PNG", exif=turned(3)),
    "turned tiff": lambda: encoded(gradient(), "TIFF", exif=turned(8)),
    "bmp": lambda: encoded(gradient(), "BMP"),
    "large": lambda: encoded(gradient(1500, 200), "PNG"),
}


def shown(*pictures):
    inner = Shown()
    Captioner(inner).write(pictures)
    return inner.asked


@pytest.mark.parametrize("name", FILES)
def test_a_decoded_picture_is_read_as_its_file(name):
    data = FILES[name]()
    before = Image.open(io.BytesIO(data))
    before.load()
    info, mode, pixels = dict(before.info), before.mode, before.tobytes()
    of_bytes, of_lazy, of_loaded = shown(data, Image.open(io.BytesIO(data)), before)
    assert np.array_equal(of_bytes, of_lazy)
    assert np.array_equal(of_bytes, of_loaded)
    assert (before.info, before.mode, before.tobytes()) == (info, mode, pixels), "the user's own stays as it is"


def test_whatever_holds_a_picture_holds_the_same(tmp_path):
    data = encoded(gradient(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as file:
        array = np.asarray(gradient())
        first, *others = shown(
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            file,
            tmp_path / "a.png",
            str(tmp_path / "a.png"),
            array,
            np.asfortranarray(array),
            gradient(),
        )
    assert all(np.array_equal(first, other) for other in others)
    grey, light = shown(np.full((4, 6), 9, np.uint8), gradient().convert("RGBa"))
    assert (grey == 9).all()
    assert grey.shape == (4, 6, 3)
    assert np.array_equal(light, shown(gradient().convert("RGBA"))[0])


def cut_short():
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")
    return Image.open(io.BytesIO(data[: len(data) // 2]))


def closed():
    image = Image.open(io.BytesIO(encoded(gradient(), "PNG")))
    image.close()
    return image


def closed_file():
    file = io.BytesIO(b"x")
    file.close()
    return file


def too_many():
    side = int(ImageLimits().max_pixels ** 0.5) + 1
    return Image.new("1", (side, side))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: None, "None is no picture"),
        (lambda: 7, "an int is no picture"),
        (lambda: np.zeros((4, 4, 3)), r"an array of float64 \(4, 4, 3\) is no picture"),
        (lambda: np.zeros((3, 4, 5), np.uint8), r"an array of uint8 \(3, 4, 5\)"),
        (lambda: np.zeros((0, 5, 3), np.uint8), r"an array of uint8 \(0, 5, 3\)"),
        (lambda: b"no picture", "it cannot be decoded"),
        (lambda: io.BytesIO(b""), "it cannot be decoded.*\n.*seek"),
        (lambda: io.StringIO("text"), "gives a str, not bytes"),
        (closed_file, "it cannot be read: I/O operation on closed file"),
        (cut_short, "it cannot be read: .*truncated"),
        (closed, "it cannot be read"),
        (lambda: Image.new("RGB", (0, 5)), "0 x 5 pixels"),
        (too_many, "at most 50,000,000"),
    ],
)
def test_what_is_no_picture_is_told_with_its_place(bad, told):
    good = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(DataError, match=f"picture 3: .*{told}"):
        Captioner(Colours()).write([good, good, good, bad()], batch_size=2)
    with pytest.raises(DataError, match=f"picture 1: .*{told}"):
        Filter(Colours()).score([good, bad()], [["a"], ["b"]])


def test_a_file_that_is_not_there_is_told_by_its_name():
    with pytest.raises(SourceError, match=r"nowhere\.png: there is no such file"):
        Captioner(Colours()).write(["nowhere.png"])


@pytest.mark.parametrize("bare", ["a.jpg", b"GIF", gradient(), np.zeros((8, 8, 3), np.uint8), io.BytesIO(b"GIF")])
def test_one_picture_is_no_list_of_them(bare):
    with pytest.raises(DataError, match=r'several pictures are meant\nGive a list: \["a.jpg"\]'):
        Captioner(Colours()).write(bare)
    with pytest.raises(DataError, match="several pictures are meant"):
        Filter(Colours()).score(bare, [["a"]])
    with pytest.raises(DataError, match="pictures: None where pictures are meant"):
        Captioner(Colours()).write(None)


def test_pictures_and_texts_may_come_one_after_the_other():
    widths = range(3, 10)
    inner = Colours()
    pictures, texts = (gradient(w) for w in widths), ([str(w)] * (w % 3) for w in widths)
    scores = Filter(inner).score(pictures, texts, batch_size=3)
    assert inner.asked == [(w, *[str(w)] * (w % 3)) for w in widths]
    assert [len(row) for row in scores] == [w % 3 for w in widths]
    assert len(Captioner(Colours()).write(gradient(w) for w in widths)) == len(widths)
    assert len(Captioner(Colours()).write(np.zeros((5, 8, 8, 3), np.uint8))) == 5
    with pytest.raises(DataError, match="2 lists of texts for 3 or more pictures"):
        Filter(Colours()).score((gradient(w) for w in widths), [["a"], ["b"]], batch_size=3)
    with pytest.raises(DataError, match="2 lists of texts for 1 pictures"):
        Filter(Colours()).score(iter([gradient()]), [["a"], ["b"]])


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["a penguin"], r'texts of picture 0: a str where a list of texts is meant\n.*\[\["a penguin"\]\]'),
        ("a", "texts: a str where lists of texts are meant"),
        (None, "texts: None where lists of texts are meant"),
        ([None], "texts of picture 0: None"),
        ([["a", None]], "text 1 of picture 0: None is no text"),
        ([[b"a"]], "text 0 of picture 0: a bytes is no text"),
    ],
)
def test_what_is_no_list_of_texts_is_told(texts, told):
    with pytest.raises(DataError, match=told):
        Filter(Colours()).score([gradient()], texts)


def test_a_text_that_is_no_utf8_is_scored():
    inner = Colours()
    Filter(inner).score([gradient()], [["a \ud800 penguin"]])
    assert inner.asked == [(40, "a ? penguin")]


def test_a_model_that_answers_for_too_few_pictures_is_refused():
    pictures = [gradient() for _ in range(5)]
    with pytest.raises(ModelError, match="Colours: it gave captions for 1 pictures of 2"):
        Captioner(Colours(lose=1)).write(pictures, batch_size=2)
    with pytest.raises(ModelError, match="Colours: it gave scores for 1 pictures of 2"):
        Filter(Colours(lose=1)).score(pictures, [["a"]] * 5, batch_size=2)


@pytest.mark.parametrize("answer", [None, "ab", [["a"], ["b"]], ["ab", "ab"], [None, None]])
def test_a_captioner_that_gives_other_than_was_asked_is_refused(answer):
    class Other(Colours):
        def write(self, pictures, seeds):
            return answer

    with pytest.raises(ModelError, match="Other: it gave"):
        Captioner(Other()).write([gradient(), gradient()], captions=2)


@pytest.mark.parametrize("value", [0, -1, 10**6, 1.5, "2", None])
def test_numbers_are_in_range(value):
    with pytest.raises(RecipeError, match="batch_size"):
        Captioner(Colours()).write([gradient()], batch_size=value)
    with pytest.raises(RecipeError, match="batch_size"):
        Filter(Colours()).score([gradient()], [["a"]], batch_size=value)
    with pytest.raises(RecipeError, match="captions"):
        Captioner(Colours()).write([gradient()], captions=value)


def test_no_more_captions_than_beams():
    beam = Captioner(Colours(Writing(beams=3)))
    assert len(beam.write([gradient()], captions=3)[0]) == 3
    with pytest.raises(RecipeError, match="beam search with 3 beams cannot give 5 captions an image"):
        beam.write([gradient()], captions=5)
    with pytest.raises(RecipeError, match="greedy decoding cannot give 2"):
        Captioner(Colours(Writing(beams=1))).write([gradient()], captions=2)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"decoding": "nuclear"}, "decoding: 'nuclear' is unknown\nDid you mean nucleus"),
        ({"dtype": "foo"}, "dtype: 'foo' is unknown"),
        ({"dtype": None}, "dtype: None is unknown"),
        ({"beams": 0}, "beams: 0 is not within"),
        ({"beams": 1.5}, "beams: 1.5 is no whole number"),
        ({"top_p": 0}, "top_p: 0.0 is not within"),
        ({"top_p": 2}, "top_p"),
        ({"top_p": float("nan")}, "top_p: nan"),
        ({"top_p": "0.9"}, "top_p: '0.9' is no number"),
        ({"max_length": 1}, "max_length"),
        ({"min_length": 21}, r"min_length: 21 is not within \[0, 20\]"),
        ({"min_length": -1}, "min_length"),
    ],
)
def test_settings_are_refused_before_a_model_is_loaded(settings, told):
    with pytest.raises(RecipeError, match=told):
        capfilt.Captioner.load("no-such-model", **settings)
    with pytest.raises(RecipeError, match="dtype: 'foo'"):
        capfilt.Filter.load("no-such-model", dtype="foo")
