"""Tars of strangers: what is regular and bounded is read, everything else is told and passed over."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.archive import groups, members, split_name
from capfilt.errors import DataError

LIMITS = {"jpg": 1000, "txt": 100, "seg.png": 100}


def tar_of(*items, format_=tarfile.PAX_FORMAT):
    """A tar of (name or TarInfo, data)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as tar:
        for item, data in items:
            info = item if isinstance(item, tarfile.TarInfo) else tarfile.TarInfo(item)
            info.size = info.size if info.size else len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read(data, **more):
    bad = []
    tell = lambda *told: bad.append(told)  # noqa: E731
    found = list(groups(members(io.BytesIO(data), LIMITS, tell, **more), tell))
    return {group.key: group.members for group in found}, bad


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_neighbours_of_one_key_are_a_sample(format_):
    data = tar_of(
        ("a/1.jpg", b"p" * 700),
        ("a/1.txt", b"t"),
        ("./2.seg.png", b"s"),
        ("2.JPG", b"q"),
        ("x.md", b""),
        format_=format_,
    )
    assert read(data) == ({"a/1": {"jpg": b"p" * 700, "txt": b"t"}, "2": {"seg.png": b"s", "jpg": b"q"}}, [])


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(format_):
    name = "é" * 150 + "/" + "k" * 90
    assert read(tar_of((f"{name}.jpg", b"p"), ("2.jpg", b"q"), format_=format_))[0] == {
        name: {"jpg": b"p"},
        "2": {"jpg": b"q"},
    }


@pytest.mark.parametrize(
    "item",
    [
        (special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (special("a.jpg", tarfile.LNKTYPE, "../x"), b""),
        (special("a.jpg", tarfile.CHRTYPE), b""),
        (special("a.jpg", tarfile.FIFOTYPE), b""),
        ("/etc/a.jpg", b"x"),
        ("../a.jpg", b"x"),
        ("b/../../a.jpg", b"x"),
        ("b\\a.jpg", b"x"),
        ("a.jpg", b"x" * 1001),
    ],
)
def test_what_is_not_a_bounded_regular_file_is_told_and_passed_over(item):
    found, bad = read(tar_of(item, ("ok.txt", b"fine")))
    assert found == {"ok": {"txt": b"fine"}}
    assert len(bad) == 1


def test_an_extension_twice_keeps_the_first():
    found, bad = read(tar_of(("a.txt", b"1"), ("a.txt", b"2")))
    assert found == {"a": {"txt": b"1"}}
    assert bad == [("a.txt", "the extension is there twice in one sample")]


def test_members_can_be_passed_over_unread():
    data = tar_of(("1.jpg", b"p"), ("2.jpg", b"q"))
    assert read(data, read=lambda key: key == "2")[0] == {"1": {"jpg": b""}, "2": {"jpg": b"q"}}


def test_a_name_that_claims_gigabytes_is_damage_not_memory():
    huge = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    huge.size = 8 << 30
    with pytest.raises(DataError, match="8589934592 bytes for a name"):
        read(huge.tobuf(tarfile.GNU_FORMAT))


def test_a_member_that_claims_more_than_there_is_is_damage():
    info = tarfile.TarInfo("a.jpg")
    info.size = 900
    with pytest.raises(DataError, match="cut short"):
        read(info.tobuf() + b"x" * 100)
    info.size = 900_000_000
    with pytest.raises(DataError, match="cut short"):
        read(info.tobuf() + b"x" * 100)


def test_a_damaged_header_in_the_middle_is_told_after_what_was_good():
    data = bytearray(tar_of(("1.jpg", b"p"), ("2.jpg", b"q")))
    data[1024 + 3] ^= 0xFF
    stream = members(io.BytesIO(bytes(data)), LIMITS, lambda *_: None)
    assert next(stream).key == "1"
    with pytest.raises(DataError, match="checksum"):
        next(stream)


def test_a_missing_end_is_told():
    found, bad = read(tar_of(("1.jpg", b"p"))[:1024])
    assert found == {"1": {"jpg": b"p"}}
    assert bad == [("", "the tar has no end mark: it may be cut short")]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2600), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 3000))
def test_any_damage_is_a_data_error_or_nothing(changes, length):
    data = bytearray(tar_of(("1.jpg", b"p" * 600), ("é" * 120 + ".txt", b"t")))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        read(bytes(data[:length] if length < 2900 else data))
    except DataError:
        return


def test_names_are_cut_at_the_first_dot_of_the_base():
    assert split_name("a.b/c.d.e") == ("a.b/c", "d.e")
    assert split_name("C.JPG") == ("C", "jpg")
    for hidden in (".x", "x", "a/.b", "x."):
        assert split_name(hidden) is None
