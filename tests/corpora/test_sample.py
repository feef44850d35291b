import csv
import io

import pytest
from PIL import Image

from capfilt import images
from capfilt.corpora import traps
from capfilt.corpora.sample import TRAPS, bad_rows, smallest, table
from capfilt.records import Drop

ROWS = [("images/a.png", 'A "fine" apple, red'), ("images/b.png", "Äpfel")]


def test_the_table_can_be_read_back():
    read = list(csv.DictReader(io.StringIO(table(ROWS).decode("utf-8"))))
    assert [(row["url"], row["caption"]) for row in read] == ROWS


def test_the_bad_rows_name_the_files_that_are_made_for_them():
    rows = bad_rows(ROWS, "u.png")
    assert ROWS[0] in rows
    assert {f"images/{name}" for name in TRAPS} <= {url for url, _ in rows}
    assert ("images/u.png", "") in rows
    assert any(url == "" for url, _ in rows)


@pytest.mark.parametrize(
    ("make", "drop"),
    [
        (traps.html_page, Drop.NOT_AN_IMAGE),
        (traps.truncated_jpeg, Drop.BROKEN_IMAGE),
        (traps.giant_png, Drop.TOO_MANY_PIXELS),
        (traps.tiny_gif, Drop.TOO_SMALL),
        (traps.long_strip, Drop.BAD_ASPECT),
    ],
)
def test_each_trap_is_dropped_for_its_own_reason(make, drop):
    data = make()
    assert len(data) < 100_000
    assert data == make()
    assert images.normalise(data, images.ImageLimits()).drop == drop


def test_flat_drawings_stay_exact():
    assert smallest(Image.new("RGB", (64, 64), "red"))[0] == "png"
    assert smallest(Image.effect_noise((128, 128), 80).convert("RGB"))[0] == "jpg"
