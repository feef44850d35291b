"""Rows and pictures for the tests of formats."""

import hashlib
import io

import pytest
from PIL import Image

from capfilt import records
from capfilt.records import Caption, Drop
from capfilt.storage import Store


@pytest.fixture
def picture():
    def make(colour="red", kind="JPEG", size=(40, 30)):
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture
def part_table(picture):
    """A part of ``rows`` rows: every third dropped, the others kept with two captions, one of them rejected."""

    def make(index=0, rows=7, start=0, keep=True, kinds=("JPEG", "PNG")):
        table = []
        for row in range(start, start + rows):
            dropped = not keep or row % 3 == 2
            text = f"web text {row}"
            image = picture(kind=kinds[row % len(kinds)])
            table.append(
                {
                    "id": records.row_id(f"http://h/{row}.jpg", text),
                    "part": index,
                    "row": row,
                    "url": f"http://h/{row}.jpg",
                    "image": None if dropped else image,
                    "width": None if dropped else 40,
                    "height": None if dropped else 30,
                    "sha256": None if dropped else hashlib.sha256(image).hexdigest(),
                    "captions": [
                        Caption(text=text, origin="web", itm=None if dropped else 0.25, itc=None, kept=False),
                        *(
                            []
                            if dropped
                            else [Caption(text="a red field", origin="synthetic", itm=0.75, itc=0.5, kept=True)]
                        ),
                    ],
                    "drop": Drop.UNREACHABLE if dropped else None,
                    "detail": "no answer" if dropped else None,
                }
            )
        return records.table_of(table)

    return make


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "dest"))
