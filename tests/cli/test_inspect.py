"""``capfilt inspect``: what a reader sees, and what a program does."""

import json

from capfilt.cli.inspect import size
from capfilt.cli.main import call


def test_lines_for_a_reader_and_json_for_a_program(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("link,words\nhttp://h/1.jpg,a dog\nhttp://h/2.jpg,\n")
    sets = ["--set", "source.caption_column=words", "--set", "plan.part_rows=1"]
    assert call(["inspect", str(tmp_path / "x.csv"), *sets, "-n", "1"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[:6] == [
        "kind      table (1 table, by name)",
        "files     1, 48 bytes",
        "rows      2",
        "parts     2",
        "pictures  to be fetched",
        "columns   link, words",
    ]
    assert told.count("http://h/") == 1
    assert call(["inspect", str(tmp_path / "x.csv"), *sets, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["rows"], found["without_caption"], len(found["sample"])) == ("table", 2, 0.5, 2)


def test_what_a_stranger_wrote_does_not_move_the_cursor(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text(json.dumps({"url": "http://h", "caption": "a\x1b[2J\ncat" + "!" * 500}) + "\n")
    assert call(["inspect", str(tmp_path / "x.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "a [2J cat!!!" in told
    assert max(map(len, told.splitlines())) < 120


def test_nor_does_the_name_of_a_column_or_a_host(tmp_path, capsys):
    named = {"url": "http://h\x1b[8m/1.jpg", "caption": "a cat", "x\x1b[2J\nkind      folder\x9b1m": 1}
    (tmp_path / "x.jsonl").write_text(json.dumps(named) + "\n")
    assert call(["inspect", str(tmp_path / "x.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "x [2J kind      folder 1m" in told
    assert told.replace("\n", "").isprintable()
    assert [line.split()[1] for line in told.splitlines() if line.startswith("kind")] == ["table"]


def test_a_mistake_takes_two_lines(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("link,words\nhttp://h/1.jpg,a dog\n")
    assert call(["inspect", str(tmp_path / "x.csv")]) == 2
    assert "mend: Set source.caption_column" in capsys.readouterr().err


def test_sizes_are_read_at_a_glance():
    assert [size(n) for n in (0, 1023, 1024, 5 << 20, 3 << 40)] == [
        "0 bytes",
        "1,023 bytes",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 TiB",
    ]
