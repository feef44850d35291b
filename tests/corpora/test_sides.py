from capfilt.corpora.sides import HELD_OUT_ONE_IN, chance, held_out, pick, split


def test_a_name_falls_on_one_side_and_always_the_same():
    names = [f"concept-{i}" for i in range(2000)]
    sides = split("concept", names)
    assert sorted(sides["train"] + sides["held_out"]) == sorted(names)
    assert sides == split("concept", reversed(names + names))
    assert abs(len(sides["held_out"]) - 2000 / HELD_OUT_ONE_IN) < 50


def test_the_split_is_written_in_stone():
    # A change here would move held-out concepts into training: every published figure would be void.
    assert [held_out("concept", code) for code in ("1f419", "1f9e6", "2702")] == [False] * 3
    assert held_out("concept", "1f34e")  # the red apple
    assert held_out("concept", "1f9a1")  # the badger


def test_pieces_do_not_run_into_each_other():
    assert chance("ab", "c") != chance("a", "bc")
    assert all(0 <= pick(4, "seed", str(i)) < 4 for i in range(200))
    assert {pick(4, "seed", str(i)) for i in range(200)} == {0, 1, 2, 3}
