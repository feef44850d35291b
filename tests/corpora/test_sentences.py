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
    assert first[0] == "a red apple"
    assert first[1].startswith("red apple, fruit, ")
    others = {tuple(sentences("red apple", tags, symbol=False, seed=str(i))) for i in range(40)}
    assert len(others) > 2
    assert {said[0] for said in others} == {"a red apple"}


def test_a_sign_takes_no_article():
    assert sentences("SOON arrow", [], symbol=True, seed="s") == ["SOON arrow"]


def test_a_thing_without_keywords_has_its_name_only():
    assert sentences("crab", ["crabs"], symbol=False, seed="s") == ["a crab"]
