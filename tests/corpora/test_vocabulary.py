import subprocess
import sys

from capfilt.corpora.vocabulary import SPECIAL, learn

TEXTS = ["a red apple", "Red Apples!", "an apple tree", "the flag of Chad", "the flag of Norway"] * 3


def test_special_pieces_come_first_and_padding_is_zero():
    pieces = learn(TEXTS)
    assert tuple(pieces[:5]) == SPECIAL
    assert len(set(pieces)) == len(pieces)
    assert {"apple", "flag", "red"} <= set(pieces)
    assert all(piece == piece.lower() for piece in pieces[5:])


def test_the_order_of_the_texts_does_not_matter():
    assert learn(TEXTS) == learn(reversed(TEXTS))


def test_size_is_a_bound():
    assert len(learn(TEXTS, size=40)) <= 40


def test_another_process_learns_the_same():
    code = f"from capfilt.corpora.vocabulary import learn; print(learn({TEXTS!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(learn(TEXTS))
