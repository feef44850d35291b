"""Caption metrics: pycocoevalcap's figures, with and without Java, and variety counted by hand."""

from __future__ import annotations

import builtins
import json
import math
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from capfilt.errors import DataError, EngineError
from capfilt.evaluate.quality import diversity, quality
from capfilt.evaluate.references import read

FAILS_AFTER_TOKENS = """case "$*" in *PTBTokenizer*) for last; do :; done; tr A-Z a-z < "$last";; *) exit 1;; esac"""
"""A Java that splits words and then has no memory for METEOR and SPICE."""
TEXTS = ["a man rides a horse", "two dogs play in the snow", "a red bus on a street", "a plate of food"]
REFERENCES = [
    ["A man is riding a horse.", "A person on a brown horse"],
    ["Two dogs are playing in the snow!", "dogs play in snow"],
    ["A double-decker bus drives down the street.", "a red bus"],
    ["A cat sleeps on the sofa.", "a sleeping cat"],
]


def bleu_1(texts: list[str], references: list[list[str]]) -> float:
    """Papineni et al. 2002, equations 1 to 3, for single words and the closest reference's length."""
    hit = written = closest = 0
    for text, rows in zip(texts, references, strict=True):
        words, others = text.split(), [row.split() for row in rows]
        written += len(words)
        closest += min((abs(len(row) - len(words)), len(row)) for row in others)[1]
        allowed = Counter[str]()
        for row in others:
            allowed |= Counter(row)
        hit += sum((Counter(words) & allowed).values())
    penalty = 1.0 if written >= closest else math.exp(1 - closest / written)
    return penalty * hit / written


def test_without_java_words_are_split_plainly_and_what_needs_it_is_named() -> None:
    found = quality(TEXTS, REFERENCES, java=False)
    assert found.tokenizer == "plain"
    assert set(found.left_out) == {"METEOR", "SPICE"}
    assert all("Java" in why for why in found.left_out.values())
    assert list(found.scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    plain = [[r.lower().strip(".!").replace("double-decker", "double decker") for r in rows] for rows in REFERENCES]
    assert found.scores["BLEU-1"] == pytest.approx(bleu_1(TEXTS, plain), rel=1e-6)
    perfect = quality([rows[0] for rows in REFERENCES], REFERENCES, java=False)
    assert perfect.scores["BLEU-4"] == pytest.approx(1.0, abs=1e-6)
    assert perfect.scores["CIDEr"] > 2 * found.scores["CIDEr"]


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine")
def test_with_java_the_figures_are_those_of_the_official_scorers() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    found = quality(TEXTS, REFERENCES, java=True)
    assert found.tokenizer == "PTB"
    wanted = PTBTokenizer().tokenize({i: [{"caption": r} for r in rows] for i, rows in enumerate(REFERENCES)})
    said = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(TEXTS)})
    assert found.scores["CIDEr"] == pytest.approx(Cider().compute_score(wanted, said)[0])
    assert found.scores["ROUGE-L"] == pytest.approx(Rouge().compute_score(wanted, said)[0])
    assert found.scores["BLEU-4"] == pytest.approx(Bleu(4).compute_score(wanted, said)[0][3])
    assert 0 < found.scores["METEOR"] < 1
    assert set(found.left_out) <= {"SPICE"}
    assert all("get_stanford_models" in why for why in found.left_out.values())


SAID = (
    "A {} stands on the {}.",
    "two {}s, one of them near a {}",
    "There's a {} (on a {})",
    "{} and {}",
)
THINGS = ("dog", "double-decker bus", "man's hat", "snow-covered hill", "pizza", "zebra", "tennis racket")


def coco_files(folder: Path, pictures: int) -> tuple[Path, Path]:
    """Annotations and results as COCO lays them out: five captions a picture; the ids in no order."""
    draw = random.Random(0)
    annotations, results = [], []
    ids = draw.sample(range(100_000, 600_000), pictures)
    for image in ids:
        things = draw.sample(THINGS, 2)
        rows = [draw.choice(SAID).format(*draw.sample(things, 2)) for _ in range(5)]
        annotations += [{"image_id": image, "id": len(annotations) + i, "caption": row} for i, row in enumerate(rows)]
        near = draw.choice((things, [things[0], draw.choice(THINGS)]))
        results.append({"image_id": image, "caption": draw.choice(SAID).format(*near).lower().strip(".")})
    draw.shuffle(annotations)
    images = [{"id": image, "file_name": f"COCO_val2014_{image:012d}.jpg", "width": 640} for image in ids]
    told = {"info": {}, "licenses": [], "type": "captions", "images": images, "annotations": annotations}
    for name, data in (("annotations.json", told), ("results.json", results)):
        (folder / name).write_text(json.dumps(data))
    return folder / "annotations.json", folder / "results.json"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # its METEOR leaves pipes open
def test_figures_are_those_of_the_official_program_from_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COCOEvalCap, called as its own example calls it. Only SPICE is taken from it, which would fetch a parser."""
    from pycocoevalcap import eval as official
    from pycocotools.coco import COCO

    class NoSpice:
        def method(self) -> str:
            return "SPICE"

        def compute_score(self, wanted: dict, said: dict) -> tuple[float, list[float]]:
            return 0.0, [0.0] * len(wanted)

    monkeypatch.setattr(official, "Spice", NoSpice)
    annotations, results = coco_files(tmp_path, 40)
    coco = COCO(str(annotations))
    coco_results = coco.loadRes(str(results))
    wanted = official.COCOEvalCap(coco, coco_results)
    wanted.params["image_id"] = coco_results.getImgIds()
    wanted.evaluate()

    items = list(read([str(annotations)]))
    texts = {str(row["image_id"]): row["caption"] for row in json.loads(results.read_text())}
    found = quality([texts[item.key] for item in items], [item.texts for item in items])
    assert found.tokenizer == "PTB"
    names = {f"BLEU-{n}": f"Bleu_{n}" for n in (1, 2, 3, 4)} | {"ROUGE-L": "ROUGE_L"}
    got = {names.get(name, name): value for name, value in found.scores.items()}
    assert {"Bleu_4", "METEOR", "ROUGE_L", "CIDEr"} <= got.keys()
    # The example gives pictures in another order, by which sums are rounded otherwise.
    assert got == {name: pytest.approx(wanted.eval[name], rel=1e-9) for name in got}
    assert 0.1 < got["Bleu_4"] < 0.9


def test_a_java_that_fails_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for script, tokenizer in (("echo no heap >&2; exit 1", "plain"), (FAILS_AFTER_TOKENS, "PTB")):
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\n{script}\n")
        java.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        found = quality(TEXTS, REFERENCES)
        assert found.tokenizer == tokenizer
        assert {"METEOR", "SPICE"} == set(found.left_out)
        assert found.scores["CIDEr"] > 0


def test_without_the_package_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: object) -> object:
        if name.startswith("pycocoevalcap"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(EngineError) as caught:
        quality(TEXTS, REFERENCES)
    assert "capfilt[eval]" in caught.value.mend


def test_references_without_a_word_are_refused() -> None:
    """CIDEr of them is an error of its own; one word among all of them is enough."""
    with pytest.raises(DataError, match="no reference has a word"):
        quality(["a cat", "a dog"], [["..."], ["!", ""]], java=False)
    assert quality(["a cat", "a dog"], [["..."], ["dog"]], java=False).captions == 2


def test_variety_is_counted() -> None:
    found = diversity(["a red bus", "a red bus", "a blue bus"])
    assert (found.captions, found.vocabulary) == (3, 4)
    assert found.distinct_1 == pytest.approx(4 / 9)
    assert found.distinct_2 == pytest.approx(4 / 6)
    assert found.distinct_3 == pytest.approx(2 / 3)
    assert found.unique == pytest.approx(2 / 3)
    assert found.repeated == pytest.approx(2 / 3)
    assert found.words == 3
    assert diversity([]).unique == 0
