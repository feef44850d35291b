import pytest

from capfilt.corpora.sentences import keywords, phrase, sentences, with_article


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("red apple", "red apple"),
        ("flag: Chad", "the flag of Chad"),
        ("keycap: 7", "keycap 7"),
        ("man: red hair", "man with red hair"),
        ("woman: bald", "bald woman"),
        ("man walking: facing right", "man walking facing right"),
        ("raised hand: dark skin tone", "raised hand with dark skin tone"),
        ("man: light skin tone, red hair", "man with light skin tone and red hair"),
        ("family: man, woman, boy", "family of man, woman and boy"),
        ("kiss: woman, man", "kiss, woman and man"),
        ("kiss: dark skin tone", "kiss"),
        ("four o'clock", "clock showing four o'clock"),
        ("four-thirty", "clock showing four thirty"),
        ("Japanese “here” button", "Japanese here button"),
    ],
)
def test_a_label_becomes_words(label, words):
    assert phrase(label) == words


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("red apple", "a red apple"),
        ("octopus", "an octopus"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("socks", "socks"),
        ("skis", "skis"),
        ("bus", "a bus"),
        ("cooked rice", "cooked rice"),
        ("face with tears of joy", "a face with tears of joy"),
        ("people hugging", "people hugging"),
        ("the flag of Chad", "the flag of Chad"),
        ("Mount Fuji", "Mount Fuji"),
    ],
)
def test_articles(words, named):
    assert with_article(words) == named


def test_keywords_say_something_new_that_can_be_seen():
    tags = ["animal", "high-speed", "trains", "you", "omg", "143", "railway", "x"]
    assert keywords("high-speed train", tags) == ["animal", "railway"]


def test_the_plainest_sentence_comes_first_and_the_seed_decides_the_rest():
    tags = ["fruit", "food", "ripe", "diet", "health"]
    first = sentences("red apple", tags, symbol=False, seed="noto/1f34e")
    assert first == sentences("red apple", tags, symbol=False, seed="noto/1f34e")
    assert first[0] == "red apple"
    assert first[1].endswith("a red apple")
    assert first[2].startswith("red apple, fruit, ")
    others = {tuple(sentences("red apple", tags, symbol=False, seed=str(i))) for i in range(40)}
    assert len(others) > 5


def test_a_sign_takes_no_article():
    said = sentences("SOON arrow", [], symbol=True, seed="s")
    assert said[0] == "SOON arrow"
    assert said[1].endswith(" SOON arrow")
    assert " a SOON" not in said[1]


def test_most_captions_are_led_by_the_name():
    said = [s for i in range(500) for s in sentences("crab", ["animal", "sea"], symbol=False, seed=str(i))]
    assert sum(s.startswith(("crab", "a crab")) for s in said) / len(said) > 0.8
