import json
import tarfile

import pytest

from capfilt.corpora.icons import COLOURS, EXTRAS, SETS, Hidden, IconSet, name_of, read_icons, words
from capfilt.corpora.packages import locked

ANY = IconSet(name="any")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("fire-extinguisher", "fire extinguisher"),
        ("fire-extinguisher-2-flat", "fire extinguisher"),
        ("dice-five", "dice five"),
        ("chart-3-pie", "chart pie"),
        ("h1", None),
        ("24px", None),
        ("flat", None),
        ("google-logo", None),
        ("credit-card-payment-machine-reader", None),
    ],
)
def test_a_file_name_becomes_words(key, name):
    assert name_of(key, ANY) == name


def test_variants_and_marked_icons_are_left_out_where_a_set_says_so():
    filled = IconSet(name="f", only=frozenset({"fill"}))
    assert [name_of(key, filled) for key in ("cat-fill", "cat", "cat-bold")] == ["cat", None, None]
    assert name_of("bottle-one", IconSet(name="n", numbered=True)) == "bottle"
    plain = IconSet(name="p", without=frozenset({"plus"}))
    assert [name_of(key, plain) for key in ("cat", "cat-plus", "surplus")] == ["cat", None, "surplus"]


def test_nothing_shows_a_hidden_concept():
    hidden = Hidden(
        held_out=["a red apple", "crying face", "keys", "the flag of Chad"], trained=["a red heart", "face"]
    )
    for said in ("apple", "apples in a basket", "green apple core", "face crying loudly", "key ring", "chad", "of the"):
        assert hidden.shown_by(said), said
    # What trained concepts are called too hides nothing: a face, red, a flag beside another country's.
    for said in ("red car", "smiling face", "horse"):
        assert not hidden.shown_by(said), said
    # But the words of a held-out name alone may mean it.
    assert hidden.shown_by("red")


def test_words_are_compared_without_number():
    assert words("The berries of two buses on glass") == {"berry", "two", "buse", "glass"}


def test_icons_are_read_from_their_archives_and_coloured(tmp_path):
    archives = {}
    for one in SETS:
        path = tmp_path / f"{one.name}.tgz"
        body = {"icons": {f"owl-{'fill' if one.only else '2'}": {"body": "<path fill='currentColor'/>"}}}
        body["icons"]["apple"] = {"body": "<path/>"}
        (tmp_path / "icons.json").write_text(json.dumps(body))
        with tarfile.open(path, "w:gz") as tar:
            tar.add(tmp_path / "icons.json", "package/icons.json")
        archives[one.package] = path
    found = list(read_icons(archives, hidden=Hidden(["apple"], [])))
    assert [(icon.set, icon.name) for icon in found] == [(one.name, "owl") for one in SETS]
    assert all("currentColor" not in icon.svg for icon in found)
    used = {icon.svg.split("fill='")[1].split("'")[0] for icon in found}
    assert used <= set(COLOURS)
    assert len(used) > 1


def test_of_a_set_with_categories_some_are_read_only(tmp_path):
    one = IconSet(name="drawn", categories=frozenset({"Extras"}), without=frozenset({"logo"}))
    keys = ("owl", "narwhal", "firm-logo", "doe")
    files = {
        "icons.json": {"icons": {key: {"body": "<path/>"} for key in keys}},
        "metadata.json": {"categories": {"Extras": ["narwhal", "firm-logo", "doe", "gone"], "Animals": ["owl"]}},
    }
    path = tmp_path / "drawn.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content))
            tar.add(tmp_path / name, f"package/{name}")
    read = read_icons({one.package: path}, hidden=Hidden(["doe"], []), sets=[one])
    assert [icon.key for icon in read] == ["narwhal"]


def test_every_set_is_locked():
    assert {one.package for one in (*SETS, *EXTRAS)} <= set(locked())
