"""The hand-made labels, the figures measured on them, and what docs/results.md says of both."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from sklearn.metrics import cohen_kappa_score

from capfilt.evaluate.labels import read_labels
from capfilt.shards.read import samples
from capfilt.shards.tar import write_tar

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "labels.json").read_text(encoding="utf-8"))
FILE = ROOT / "models" / "med-mini" / "labels.csv"
SECOND = FILE.with_name("labels-second.csv")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_labels", ROOT / "benchmarks" / "labels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_are_of_the_labels_that_are_there() -> None:
    labels = read_labels(str(FILE))
    assert RESULTS["labels"] == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert RESULTS["not_found"] == 0
    for name, own in RESULTS["sets"].items():
        count = Counter(label.label for label in labels if label.set == name)
        assert count == {verdict: own[verdict] for verdict in ("right", "wrong", "unsure")}
    assert Counter(label.set for label in labels) == {"titles": 506, "captions": 300}
    assert len({(label.id, label.set) for label in labels}) == len(labels)
    assert all(re.fullmatch("[0-9a-f]{32}", label.id) for label in labels)
    assert {label.kind for label in labels if label.label == "wrong"} == {"nothing", "other"}
    assert {label.kind for label in labels if label.label != "wrong"} == {""}


def test_the_pages_tables_are_those_of_the_results(script: ModuleType) -> None:
    assert script.filled(PAGE, RESULTS) == PAGE
    changed = json.loads(json.dumps(RESULTS))
    changed["sets"]["titles"]["auc_itm"]["value"] += 0.02
    assert script.filled(PAGE, changed) != PAGE
    with pytest.raises(ValueError, match="no place"):
        script.filled("an empty page", RESULTS)


def test_what_the_page_says_in_words_is_so() -> None:
    titles, captions = RESULTS["sets"]["titles"], RESULTS["sets"]["captions"]
    for name, own in (("titles the\nfilter reaches an AUC of", titles), ("captions", captions)):
        assert f"{name} {own['auc_itm']['value']:.2f}" in PAGE
    assert captions["auc_itm"]["high"] < 0.90 < titles["auc_itm"]["value"]
    assert 1 / 3 < titles["wrong"] / (titles["wrong"] + titles["right"]) < 2 / 5
    assert titles["wrong_texts"] == 17
    assert captions["wrong"] / (captions["wrong"] + captions["right"]) == pytest.approx(6 / 7, abs=0.01)
    two = ("Part of the Flat Icon Collection", "Lemon SVG theme")
    assert sum(label.text.startswith(two) for label in read_labels(str(FILE)) if label.set == "titles") == 132
    assert f"gets up to {max(row['itm'] for row in RESULTS['worst'] if row['set'] == 'titles'):.2f}" in PAGE


def test_the_second_judge_labelled_the_same_pairs_and_its_figures_are_of_its_labels() -> None:
    first, second = ({(one.set, one.id): one for one in read_labels(str(file))} for file in (FILE, SECOND))
    assert {place: one.text for place, one in first.items()} == {place: one.text for place, one in second.items()}
    told = RESULTS["second"]
    assert told["labels"] == hashlib.sha256(SECOND.read_bytes()).hexdigest()
    for name, own in told["sets"].items():
        pairs = [(one.label, second[place].label) for place, one in first.items() if one.set == name]
        assert Counter(label for _, label in pairs) == {
            verdict: own[verdict] for verdict in ("right", "wrong", "unsure")
        }
        assert own["agreement"]["pairs"] == len(pairs)
        assert own["agreement"]["kappa"] == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
        agreed = Counter(label for label, other in pairs if label == other)
        assert (agreed["right"], agreed["wrong"]) == (own["both"]["right"], own["both"]["wrong"])


def test_what_the_page_says_of_the_list_is_so() -> None:
    titles, beside = RESULTS["sets"]["titles"], RESULTS["boilerplate"]
    others = beside["titles"]
    assert (titles["wrong"], titles["wrong"] - others["wrong"]) == (185, 183)
    assert (titles["wrong_texts"], titles["wrong_texts"] - others["wrong_texts"]) == (17, 15)
    assert beside["listed"]["wrong"] == pytest.approx(183 / 185)
    assert beside["listed"]["right"] == pytest.approx((titles["right"] - others["right"]) / titles["right"])
    assert f"which knows no picture, has {beside['auc']:.2f}" in PAGE


def test_what_the_page_says_of_thresholds_is_so() -> None:
    titles, captions = RESULTS["sets"]["titles"], RESULTS["sets"]["captions"]
    base = {name: own["right"] / (own["right"] + own["wrong"]) for name, own in RESULTS["sets"].items()}
    assert f"{base['titles']:.0%} of the titles and {base['captions']:.0%} of the captions" in PAGE
    low = next(row for row in titles["thresholds"] if row["threshold"] == 0.1)
    assert f"raises it to {low['precision']['value']:.0%}" in PAGE
    assert low["recall"]["value"] == pytest.approx(0.9, abs=0.02)
    assert captions["rule"]["precision"]["value"] / base["captions"] == pytest.approx(2.5, abs=0.1)


def test_the_worst_are_the_worst_and_no_text_comes_twice(script: ModuleType) -> None:
    rows = [
        {"set": "titles", "label": label, "text": text, "itm": itm}
        for label, text, itm in [
            ("wrong", "Icons 1", 0.8), ("wrong", "Icons 2", 0.9), ("wrong", "Theme", 0.3), ("wrong", "Name", 0.5),
            ("right", "Dog", 0.9), ("right", "Cat", 0.1), ("right", "cat", 0.05), ("unsure", "Thing", 0.0),
        ]
    ]  # fmt: skip
    found = [(row["text"], row["itm"]) for row in script.worst(rows, 2)]
    assert found == [("Icons 2", 0.9), ("Name", 0.5), ("cat", 0.05), ("Dog", 0.9)]
    for row in RESULTS["worst"]:
        assert row["label"] in {"right", "wrong"}


def test_the_script_measures_judged_pictures_with_the_shipped_filter(
    script: ModuleType, tmp_path: Path, shape_shard: Path
) -> None:
    some = list(samples([str(shape_shard)]))[:8]
    with (tmp_path / "heldout-clipart-00000.tar").open("wb") as out:
        write_tar(out, some)
    lines = [f"{sample.meta['id']},{sample.captions[0]['text']},right,titles,,right" for sample in some]
    lines += [f"{sample.meta['id']},a bunch of grapes,wrong,captions,other," for sample in some]
    lines += [f"{some[0].meta['id']},a red lorry,right,captions,,"]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["id,text,label,set,kind,again", *lines]) + "\n", encoding="utf-8")
    told = script.measure(tmp_path, labels=labels, second=labels)
    rows = told.pop("judgements")
    assert told.keys() == RESULTS.keys() - {"worst"}
    assert told["sets"]["captions"]["auc_itm"] is not None
    assert told["second"]["sets"]["titles"]["agreement"]["same"] == 1
    assert script.tables(told)["labels"].count("\n") == 4
    pictures = {item.id: item for item in script.read([str(tmp_path / script.CLIP_ART)])}
    script.sheet(rows, pictures, tmp_path / "sheet.webp")
    assert (tmp_path / "sheet.webp").read_bytes()[8:12] == b"WEBP"


def test_the_contact_sheet_is_small() -> None:
    data = (ROOT / "docs" / "results-labels.webp").read_bytes()
    assert data[8:12] == b"WEBP"
    assert len(data) < 300_000
