import pytest

from capfilt.corpora import clipart
from capfilt.corpora.clipart import About, balanced, read_about, series_of, series_of_all, sides, title_key, usable

PUBLIC = "http://web.resource.org/cc/PublicDomain"


def drawing(title="Pop Can", description="", licence=PUBLIC, tail=""):
    return f"""<svg><metadata><rdf:RDF><cc:Work rdf:about="">
      <dc:publisher><cc:Agent><dc:title>Open Clip Art Project</dc:title></cc:Agent></dc:publisher>
      <dc:title>{title}</dc:title><dc:description>{description}</dc:description>
      <dc:creator><cc:Agent><dc:title>Gerald G.</dc:title></cc:Agent></dc:creator>
      <cc:license rdf:resource="{licence}"/></cc:Work></rdf:RDF></metadata>{tail}"""


def test_the_title_is_the_drawings_own_not_its_publishers():
    about = read_about(drawing(description="A can of pop"))
    assert (about.title, about.description, about.public_domain) == ("Pop Can", "A can of pop", True)
    assert about.text == "Pop Can"


def test_an_untitled_drawing_is_called_by_its_description():
    assert read_about(drawing(title=" ", description="hand\n  phone")).text == "hand phone"


def test_entities_and_markup_in_a_title():
    assert read_about(drawing(title="Fish &amp; <b>chips</b>")).title == "Fish & chips"


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        (PUBLIC, True),
        ("http://creativecommons.org/licenses/publicdomain/", True),
        ("http://creativecommons.org/licenses/GPL/2.0/", False),
        ("", False),
    ],
)
def test_only_the_public_domain_is_free(licence, free):
    assert read_about(drawing(licence=licence)).public_domain is free


@pytest.mark.parametrize("svg", ["", "<svg></svg>", "<svg><cc:Work>", "\0\0", '<!DOCTYPE a [<!ENTITY b "c">]><svg>&b;'])
def test_a_drawing_that_says_nothing_is_not_free(svg):
    assert read_about(svg) == About(title="", description="", public_domain=False)


def test_what_is_usable():
    free = About(title="A", description="", public_domain=True)
    every = {
        "good": free,
        "owned": About(title="A", description="", public_domain=False),
        "empty": About(title="...", description="", public_domain=True),
        next(iter(clipart.LEFT_OUT)): free,
    }
    assert set(usable(every)) == {"good"}


def test_a_series_stays_on_one_side():
    names = [f"shapes/star_{i}pt{i}step" for i in range(30)] + [f"animals/{i:x}cat" for i in range(30)]
    series = {name: series_of(name) for name in names}
    assert len({sides(series)[name] for name in names[:30]}) == 1


def test_a_long_series_is_trained_on():
    names = [
        f"shapes/star_{letter}{i}" for i in range(clipart.SERIES_ALWAYS_TRAINED + 1) for letter in "abcdefghijklmnop"
    ]
    assert not any(sides({name: series_of(name) for name in names}).values())


def test_equal_pictures_join_their_series():
    series = series_of_all([("a/x1", b"1"), ("a/x2", b"2"), ("b/y", b"2"), ("c/z", b"3"), ("c/w", b"3"), ("d", b"4")])
    assert series["a/x1"] == series["a/x2"] == series["b/y"]
    assert series["c/z"] == series["c/w"] != series["d"] != series["a/x1"]


def test_titles_that_differ_by_a_date_or_number_are_one():
    one = title_key("Part of the Flat Icon Collection (Wed Aug 25 23:29:46 2004)")
    assert one == title_key("Part of the Flat Icon Collection (Thu Sep 2 10:00:01 2004)")
    assert title_key("HASH(0x85caca8)") == title_key("HASH(0x9)") == "hash"
    assert title_key("42") == "42"


def test_a_title_stands_at_most_three_times():
    texts = {f"star{i}": "gramastar" for i in range(50)} | {"a": "Apple", "b": "apple.", "c": "Pear"}
    kept = balanced(texts)
    assert sum(name.startswith("star") for name in kept) == clipart.REPEATS
    assert {"a", "b", "c"} <= kept
    assert kept == balanced(dict(reversed(texts.items())))
