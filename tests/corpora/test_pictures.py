import io

import pytest
from PIL import Image

from capfilt.corpora import traps
from capfilt.corpora.drawing import Job, draw, draw_all
from capfilt.corpora.pictures import (
    SIDE,
    Unfit,
    encode,
    from_raster,
    is_blank,
    letterbox,
    on_white,
    open_raster,
    render,
)

SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}">{body}</svg>'
RED = SQUARE.format(w=20, h=10, body='<rect width="20" height="10" fill="#f00"/>')


def png(picture):
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_a_giant_is_refused_before_it_is_decoded():
    assert open_raster(traps.giant_png()) == Unfit("too_many_pixels")
    # Between what the library warns of and what it allows.
    assert open_raster(traps.giant_png(8000)) == Unfit("too_many_pixels")
    assert from_raster(traps.giant_png(600)).size == (SIDE, SIDE)


def test_what_is_no_picture_is_unfit():
    assert from_raster(traps.html_page()) == Unfit("not_a_picture")
    assert from_raster(b"") == Unfit("not_a_picture")
    assert from_raster(traps.truncated_jpeg()) == Unfit("broken_picture")
    assert from_raster(traps.long_strip()) == Unfit("bad_aspect")


def test_a_picture_is_letterboxed_on_white_never_stretched():
    wide = letterbox(Image.new("RGB", (200, 50), "blue"), 128)
    assert wide.size == (128, 128)
    assert wide.getpixel((64, 10)) == (255, 255, 255)
    assert wide.getpixel((64, 64)) == (0, 0, 255)
    assert wide.getpixel((64, 49)) == wide.getpixel((64, 78)) == (0, 0, 255)


def test_clear_pixels_become_white_without_a_dark_edge():
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (16, 16, 48, 48))
    flat = on_white(picture, 128)
    assert flat.getpixel((2, 2)) == (255, 255, 255)
    assert flat.getpixel((64, 64)) == (255, 0, 0)
    assert min(flat.split()[0].tobytes()) > 250


def test_palettes_and_large_pictures():
    picture = Image.new("RGB", (3000, 1500), "green").convert("P")
    square = from_raster(png(picture))
    assert square.getpixel((64, 64)) == (0, 128, 0)


def test_vectors_are_drawn_upright_and_whole():
    pytest.importorskip("resvg_py")
    square = render(RED)
    assert square.size == (SIDE, SIDE)
    assert square.getpixel((64, 64)) == (255, 0, 0)
    assert square.getpixel((64, 20)) == (255, 255, 255)


def test_a_job_never_raises():
    pytest.importorskip("resvg_py")
    assert draw(Job("x", "<svg")).picture == Unfit("not_a_picture")
    assert draw(Job("x", SQUARE.format(w=9, h=9, body=""))).picture == Unfit("blank")
    assert draw(Job("x", traps.html_page())).picture == Unfit("not_a_picture")


def test_white_on_white_is_blank():
    assert is_blank(Image.new("RGB", (9, 9), "white"))
    assert not is_blank(from_raster(png(Image.new("RGB", (90, 30), "black"))))


def test_processes_keep_the_order_and_the_bytes():
    pytest.importorskip("resvg_py")
    jobs = [Job(str(i), RED.replace("#f00", f"#{i:02x}0000")) for i in range(40)]
    one = list(draw_all(jobs, processes=1))
    assert [done.name for done in one] == [job.name for job in jobs]
    assert one == list(draw_all(jobs, processes=2))
    assert one[3].picture[8:12] == b"WEBP"


def test_encoding_is_the_same_twice():
    picture = from_raster(png(Image.radial_gradient("L")))
    assert encode(picture) == encode(picture)
