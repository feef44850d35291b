import pytest

from capfilt.corpora import emoji
from capfilt.corpora.emoji import Style, chosen, concept_of, named, plain_code, read_names, read_vectors


def entry(hexcode, label, group=1, tags=(), skins=()):
    return {"hexcode": hexcode, "label": label, "group": group, "tags": list(tags), "skins": list(skins)}


def runner():
    tones = [
        entry(f"1F3C3-1F3F{i}", f"person running: {n} skin tone")
        for i, n in zip("BCDEF", ("light", "medium-light", "medium", "medium-dark", "dark"), strict=True)
    ]
    return [
        entry("1F3C3", "person running", tags=["run", "sport"], skins=tones),
        entry("1F3C3-200D-2642-FE0F", "man running", tags=["run"]),
        entry("1F3C3-200D-2640-FE0F", "woman running"),
        entry("1F3C3-200D-27A1-FE0F", "person running: facing right"),
        entry("1F3C3-200D-2640-FE0F-200D-27A1-FE0F", "woman running: facing right"),
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("1f468-200d-1f33e", "man farmer"), ("1f469-200d-1f33e", "woman farmer")),
        (("1f468", "man"), ("1f469", "woman")),
        (("1f468-200d-1f9b0", "man: red hair"), ("1f9d1-200d-1f9b0", "person: red hair")),
        (("1f936", "Mrs. Claus"), ("1f385", "Santa Claus")),
        (("1f9dc-200d-2642", "merman"), ("1f9dc-200d-2640", "mermaid")),
        (("1f468-200d-1f466", "family: man, boy"), ("1f46a", "family")),
        (("1f46c", "men holding hands"), ("1f46b", "woman and man holding hands")),
    ],
)
def test_variants_are_one_concept(one, other):
    assert concept_of(*one) == concept_of(*other)


def test_different_things_are_different_concepts():
    codes = [("1f34e", "red apple"), ("1f34f", "green apple"), ("2640", "female sign"), ("2642", "male sign")]
    codes += [("1f468-200d-1f33e", "man farmer"), ("1f468-200d-1f373", "man cook"), ("1f1f3-1f1f4", "flag: Norway")]
    assert len({concept_of(*code) for code in codes}) == len(codes)


def test_all_variants_of_an_activity_share_a_concept_and_its_side():
    assert {one.concept for one in named(runner())} == {"1f3c3"}


def test_few_variants_are_chosen_the_plainest_always():
    everyone = named(runner())
    for style in ("noto", "twemoji", "openmoji"):
        picked = chosen(style, everyone)
        assert picked == chosen(style, list(reversed(everyone)))
        assert "1f3c3" in {one.code for one in picked}
        assert sum(not one.toned for one in picked) == emoji.VARIANTS
        assert sum(one.toned for one in picked) <= 1


def test_skin_tones_are_for_one_concept_in_ten():
    tones = [[entry(f"{i:X}", f"hand {i}", skins=[entry(f"{i:X}-1F3FB", "toned")])] for i in range(4096, 5096)]
    picked = chosen("noto", named([one for pair in tones for one in pair]))
    assert 60 < sum(one.toned for one in picked) < 140
    assert sum(not one.toned for one in picked) == 1000


def test_keywords_come_commonest_first_and_components_are_left_out():
    entries = [entry("1F400", "rat", tags=["long tail", "animal"]), entry("1F401", "mouse", tags=["animal"])]
    entries += [entry("1F3FB", "light skin tone", group=2), {"hexcode": "1F1E6", "label": "regional indicator A"}]
    assert [(one.label, one.tags) for one in named(entries)] == [
        ("rat", ("animal", "long tail")),
        ("mouse", ("animal",)),
    ]


def test_plain_code_forgets_the_variation_selector():
    assert plain_code("1F575-FE0F-200D-2642-FE0F") == "1f575-200d-2642"


def test_vectors_by_code_by_name_and_by_alias(npm_package):
    names = read_names(
        npm_package("names", {"en/data.json": [entry("1F34E", "red apple", group=4), entry("1F40B", "whale", group=3)]})
    )
    icons = {
        "icons": {"apple": {"body": "<path id='a'/>"}, "whale": {"body": "<path id='w'/>", "width": 40}},
        "aliases": {"the-apple": {"parent": "apple"}, "mirror": {"parent": "apple", "hFlip": True}},
        "width": 64,
        "height": 64,
    }
    style = Style(name="test", package="test", trained=True)
    archive = npm_package("test", {"icons.json": icons, "chars.json": {"1f34e": "the-apple"}})
    found = read_vectors({"test": archive}, style, names)
    assert "id='a'" in found["1f34e"]
    assert 'viewBox="0 0 64 64"' in found["1f34e"]
    assert 'viewBox="0 0 40 64"' in found["1f40b"]
    archive = npm_package("test", {"icons.json": icons, "chars.json": {"1f34e": "mirror"}})
    assert set(read_vectors({"test": archive}, style, names)) == {"1f40b"}
