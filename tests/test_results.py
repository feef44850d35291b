"""docs/results.md says what benchmarks/results/evaluate.json holds, and the script that fills it works."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import shutil
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from capfilt.catalog import model_folder
from capfilt.embedded import HELD_OUT
from capfilt.evaluate.references import read
from capfilt.shards.sample import Sample
from capfilt.shards.tar import write_tar
from tests.conftest import shape_picture

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "evaluate.json").read_text(encoding="utf-8"))


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("evaluate")


def test_the_pages_tables_are_those_of_the_results(script: ModuleType) -> None:
    assert script.filled(PAGE, RESULTS) == PAGE
    assert set(RESULTS["sets"]) == set(HELD_OUT)
    assert f"The first {RESULTS['limit']} pictures" in PAGE


def test_another_figure_in_the_results_is_another_page(script: ModuleType) -> None:
    changed = json.loads(json.dumps(RESULTS))
    for told in changed["sets"].values():
        told["captioning"]["beam"]["scores"]["CIDEr"] += 0.01
    assert script.filled(PAGE, changed) != PAGE
    with pytest.raises(ValueError, match="no place"):
        script.filled("an empty page", RESULTS)


def test_figures_are_of_the_words_that_papers_use() -> None:
    for told in RESULTS["sets"].values():
        assert {part["tokenizer"] for part in told["captioning"].values()} == {"PTB"}
        rule = next(row for row in told["filtering"]["thresholds"] if row["threshold"] == 0.5)
        assert rule["noise_ratio"] == told["filtering"]["noise_ratio"]


def test_the_script_measures_a_few_pictures(
    script: ModuleType, tmp_path: Path, shape_shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java, which takes half a minute
    told = script.measured(list(read([str(shape_shard)]))[:8], rerank=2, device="cpu")
    assert told.keys() == RESULTS["sets"][next(iter(HELD_OUT))].keys()
    assert told["captioning"].keys() == {"beam", "nucleus"}
    whole = {**RESULTS, "sets": {"shapes": told}}
    assert script.filled(PAGE, whole).count("| shapes |") == 4
    script.plot(whole, tmp_path / "plot.webp")
    assert (tmp_path / "plot.webp").read_bytes()[8:12] == b"WEBP"


def test_what_longer_training_did_is_as_measured() -> None:
    longer, found = loaded("longer"), json.loads((ROOT / "benchmarks" / "results" / "longer.json").read_text())
    assert longer.filled(PAGE, found) == PAGE
    changed = json.loads(json.dumps(found))
    changed["filters"]["longer, 160 px"]["concepts seen, style never seen"]["shuffles"] = [0.5, 0.6]
    assert longer.filled(PAGE, changed) != PAGE
    losses = found["losses"]["longer"]
    assert f"{losses['begin']['itm']:.2f} to {losses['end']['itm']:.2f}" in PAGE.replace("\n", " ")
    third, more, mean = (
        found["filters"][each]
        for each in ("third finetuning, 128 px", "longer, 160 px", "mean of third and longer, 160 px")
    )
    name = "concepts never seen, styles seen"
    new = [statistics.mean(told[name]["shuffles"]) for told in (third, more, mean)]
    assert f"the third finetuning's is {new[0]:.3f}" in PAGE
    assert abs(new[1] - new[0]) < 0.002
    assert f"weights has {new[2]:.3f} there" in PAGE
    assert max(*more[name]["shuffles"], *mean[name]["shuffles"]) < 0.95
    for other in HELD_OUT.keys() & third.keys() - {name}:
        assert statistics.mean(more[other]["shuffles"]) > statistics.mean(third[other]["shuffles"])


def test_what_more_things_did_is_as_measured() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "longer.json").read_text())
    card, page = (
        (ROOT / file).read_text().replace("\n", " ") for file in ("models/med-mini/README.md", "docs/results.md")
    )
    losses = found["losses"]["with extras"]
    assert f"{losses['begin']['itm']:.2f} to {losses['end']['itm']:.2f}. Means" in page
    third, extras = (found["filters"][each] for each in ("third finetuning, 128 px", "with extras, 128 px"))
    mean = found["filters"]["mean of third and with extras, 128 px"]
    was, alone, both = (told["concepts never seen, styles seen"]["shuffles"] for told in (third, extras, mean))
    limits = json.loads((ROOT / "benchmarks" / "results" / "limits.json").read_text())
    assert both == pytest.approx(limits["names"]["shuffles"], abs=2e-4)  # what is shipped is the mean, in float16
    gained = [100 * (statistics.mean(each) - statistics.mean(was)) for each in (alone, both)]
    assert f"concepts {gained[0]:.1f} points, and the mean of these weights and the third's {gained[1]:.1f}" in page
    assert f"({statistics.mean(both):.3f}; {min(both):.3f} to {max(both):.3f} over the shuffles)" in page
    means = [f"{statistics.mean(each):.3f}" for each in (alone, both)]
    assert f"gave {means[0]}, the mean of those weights and the third's {means[1]}" in card
    assert max(map(float, means)) < 0.95
    for other in HELD_OUT.keys() & third.keys():
        assert statistics.mean(mean[other]["shuffles"]) > statistics.mean(third[other]["shuffles"]) + 0.003


def test_what_more_concepts_do_is_as_measured() -> None:
    concepts, found = loaded("concepts"), json.loads((ROOT / "benchmarks" / "results" / "concepts.json").read_text())
    assert concepts.filled(PAGE, found) == PAGE
    assert list(found) == list(concepts.ARMS)
    changed = json.loads(json.dumps(found))
    changed["emoji, half"]["sets"]["concepts never seen, styles seen"]["shuffles"] = [0.5, 0.6]
    assert concepts.filled(PAGE, changed) != PAGE
    anew = [told for name, told in found.items() if concepts.ARMS[name].lr]
    assert len({told["steps"] for told in anew}) == 1
    counts = [told["concepts"]["human"] for told in anew]
    assert counts[0] < counts[1] < counts[2]
    for name, said in zip(concepts.SETS, ("3.6 to 3.8", "4.4 to 4.5"), strict=True):
        quarter, half, whole = (100 * statistics.mean(told["sets"][name]["shuffles"]) for told in anew)
        low, high = sorted((half - quarter, whole - half))
        assert f"{low:.1f} to {high:.1f}" == said
        assert said in PAGE
    told = [f"{statistics.mean(told['sets'][concepts.SETS[0]]['shuffles']):.3f}" for told in anew]
    card = " ".join((ROOT / "models" / "med-mini" / "README.md").read_text(encoding="utf-8").split())
    assert f"have {told[0]}, {told[1]} and {told[2]} there" in card
    first, last = (anew[at]["losses"]["itm"] for at in (0, -1))
    assert f"ends at {first:.2f}, that of all at {last:.2f}" in PAGE
    emoji, icons = (found[name]["sets"][concepts.SETS[0]]["shuffles"] for name in list(found)[-2:])
    assert statistics.mean(icons) < statistics.mean(emoji) + 0.001


def test_arms_hold_the_concepts_of_smaller_ones(tmp_path: Path) -> None:
    concepts = loaded("concepts")
    image = shape_picture("red", "circle", random.Random(0))
    samples = [Sample(f"{at:03d}", image, [], {"concept": f"thing {at % 40}"}) for at in range(120)]
    with (tmp_path / "human-train-00000.tar").open("wb") as file:
        write_tar(file, samples)
    shown = []
    for share in (0.25, 0.5, 1.0):
        shard = concepts.some(tmp_path, "human", share, tmp_path / str(share))
        shown.append([concept for concept, _ in concepts.samples([shard])])
    assert [len(each) for each in shown] == [3 * len(set(each)) for each in shown]
    quarter, half, all_of_them = map(set, shown)
    assert quarter < half < all_of_them
    assert len(all_of_them) == 40
    assert 5 <= len(quarter) <= 15


def test_models_of_two_sizes_have_a_mean() -> None:
    longer = loaded("longer")
    one = longer.MED.load(model_folder("med-mini/filter"))
    other = one.resized(160)
    with torch.no_grad():
        other.itm_head.weight.mul_(3)
    mean = longer.mean(one, other)
    torch.testing.assert_close(mean.itm_head.weight, 2 * one.itm_head.weight)
    torch.testing.assert_close(mean.vision.pos_embed, other.vision.pos_embed)
    assert mean.config.vision.image_size == 160


def test_what_limits_the_filter_is_as_measured_and_of_the_same_pairs() -> None:
    limits, found = loaded("limits"), json.loads((ROOT / "benchmarks" / "results" / "limits.json").read_text())
    assert limits.filled(PAGE, found) == PAGE
    found["sets"]["concepts never seen, styles seen"]["words"]["none"]["auc"] += 0.01
    assert limits.filled(PAGE, found) != PAGE
    for name, told in found["sets"].items():
        assert told["auc"] == pytest.approx(RESULTS["sets"][name]["filtering"]["auc_itm"], abs=1e-3)
        assert sum(of["texts"] for of in told["words"].values()) == told["pictures"]
    whole = json.loads((ROOT / "models" / "med-mini" / "results.json").read_text())[limits.BY_NAME]["filter"]
    assert found["names"]["auc"] == pytest.approx(whole["auc_itm"], abs=1e-3)
    assert sum(of["pictures"] for of in found["names"]["worst"]) == found["names"]["pictures"] == whole["pairs"]
    shuffles = found["names"]["shuffles"]
    assert max(shuffles) == shuffles[0] == pytest.approx(found["names"]["auc"])
    assert f"the mean of all is {sum(shuffles) / len(shuffles):.3f}" in PAGE
    assert f"the others give {min(shuffles):.3f} to {sorted(shuffles)[-2]:.3f}" in PAGE
    half = sum(of["held_so_far"] < 0.5 for of in found["names"]["worst"]) + 1
    assert f"{half} of the {found['names']['names']} names hold half" in PAGE
    shares = [told["passed"] for told in found["nothing"]["filters"].values()]
    better = [text for text in limits.NOTHING if shares[1][text] < shares[0][text] / 2]
    assert (len(better), len(limits.NOTHING)) == (3, 12)
    more = [text for text in limits.NOTHING if shares[1][text] > 1.25 * shares[0][text]]
    assert len(more) == 6
    assert "Three of the twelve pass less than half as often as before, six more often" in PAGE
    assert all(list(of) == [*limits.NOTHING, "shuffled titles"] for of in shares)


def test_what_the_page_says_of_ranking_again_is_so() -> None:
    row = re.compile(r"^\|[^|]+\| \d+ \| \d+ \|((?: [\d.]+ / [\d.]+ / [\d.]+ \|){4})$", re.MULTILINE)
    worse = better = 0
    for found in row.findall(PAGE):
        cells = [[float(x) for x in cell.split("/")] for cell in found.strip(" |").split("|")]
        for itc, itm in ((cells[0], cells[1]), (cells[2], cells[3])):
            worse += sum(b < a for a, b in zip(itc, itm, strict=True))
            better += sum(b > a for a, b in zip(itc, itm, strict=True))
    assert f"makes {worse} of these {worse + better} figures worse and {better} better" in PAGE


def test_what_is_missing_is_told_by_name() -> None:
    limits = loaded("limits")
    own, true, false = ["a key", "a bus", "a key", "a bus"], [0.3, 0.9, 0.2, 0.6], [0.1, 0.6, 0.2, 0.5]
    told = limits.by_name(own, true, false)
    # One key scores below two of the four false texts; the other below two and with one; one bus with one.
    assert told["auc"] == pytest.approx(1 - (0.5 + 0.625 + 0.125) / 4)
    assert [(of["text"], of["pictures"], of["auc"]) for of in told["worst"]] == [
        ("a key", 2, 0.4375),
        ("a bus", 2, 0.9375),
    ]
    assert [of["held_so_far"] for of in told["worst"]] == pytest.approx([0.9, 1.0])
    assert told["worst"][0]["median"] == pytest.approx(0.25)


def test_the_script_counts_what_passes_of_texts_that_name_nothing(tmp_path: Path, shape_shard: Path) -> None:
    limits = loaded("limits")
    shutil.copy(shape_shard, tmp_path / "heldout-clipart-00000.tar")
    (tmp_path / "boilerplate.txt").write_text("a title\n", encoding="utf-8")
    told = limits.nothing(tmp_path, 4, {"it": model_folder("med-mini/filter")})
    assert told["pictures"] == 4
    assert set(told["filters"]["it"]["passed"].values()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    (tmp_path / "boilerplate.txt").write_text("Free clipart\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        limits.nothing(tmp_path, 4, {})
