"""The paper's recipes: they load, say what the paper says, and read what the corpora's publishers wrote."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from capfilt import catalog
from capfilt.cli.main import call
from capfilt.evaluate.references import read
from capfilt.med.config import MEDConfig
from capfilt.recipe import Recipe, load, load_config
from capfilt.rounds.config import RoundsConfig
from capfilt.sources.opening import open_source
from capfilt.train.config import DataConfig, TrainConfig
from capfilt.train.pairs import Pairs
from tests.conftest import shape_picture

ROOT = Path(__file__).resolve().parents[1]
NAMES = [name for name in catalog.recipes() if name.startswith("paper/")]
TRAINED = [name for name in NAMES if "pretrain" in name or "finetune" in name]
CORPORA = ["paper/cc12m", "paper/cc3m", "paper/coco", "paper/laion", "paper/sbu", "paper/vg"]


def head(name: str) -> str:
    lines = catalog.recipe_file(name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def test_the_list_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["recipes"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(NAMES) <= set(listed)
    assert sorted(set(NAMES) - set(TRAINED)) == CORPORA
    assert len(TRAINED) == 7


@pytest.mark.parametrize("name", catalog.recipes())
def test_every_recipe_of_the_catalogue_loads(name: str) -> None:
    if name.startswith("rounds"):
        given = {"bootstrap.source.path": "x", "human": ["y"]} | ({"start.model": "z"} if name == "rounds" else {})
        assert isinstance(load_config(RoundsConfig, name, given=given), RoundsConfig)
    elif "task:" in catalog.recipe_file(name).read_text(encoding="utf-8"):
        assert isinstance(load_config(TrainConfig, name), TrainConfig)
    else:
        assert isinstance(load(name, source="x"), Recipe)


@pytest.mark.parametrize("name", NAMES)
def test_the_head_says_the_command_and_what_must_be_there(name: str) -> None:
    said = head(name)
    assert f"--recipe {name}" in said
    assert "There must be: " in said
    assert "Never run here." in said
    for line in catalog.recipe_file(name).read_text(encoding="utf-8").splitlines():
        assert len(line) <= 120


@pytest.mark.parametrize(
    ("name", "lr", "batch_size", "epochs", "decay", "size"),
    [
        ("pretrain-b-14m", 3e-4, 2880, 20, "step", 768),
        ("pretrain-b-129m", 3e-4, 2880, 20, "step", 768),
        ("pretrain-l-129m", 2e-4, 2400, 20, "step", 1024),
        ("finetune-captioner-b", 1e-5, 256, 5, "cosine_epoch", None),
        ("finetune-captioner-l", 2e-6, 256, 5, "cosine_epoch", None),
        ("finetune-filter-b", 1e-5, 256, 6, "cosine_epoch", None),
        ("finetune-filter-l", 5e-6, 256, 6, "cosine_epoch", None),
    ],
)
def test_training_has_the_papers_values(
    name: str, lr: float, batch_size: int, epochs: int, decay: str, size: int | None
) -> None:
    config = load_config(TrainConfig, f"paper/{name}")
    got = (config.optim.lr, config.batch_size, config.epochs, config.optim.decay, config.optim.weight_decay)
    assert got == (lr, batch_size, epochs, decay, 0.05)
    if size is None:
        assert (config.image_size, config.data.origins, config.data.min_scale) == (384, ("human",), 0.5)
        if config.task == "filter":
            assert (config.objective.exact, config.objective.negative_floor) == ("blip", 0.0)
        # It starts from what the pretraining recipe of its size writes by its own command.
        pretrained = str(config.init).removeprefix("runs/").removesuffix("/model")
        assert f"runs/{pretrained} --recipe {pretrained}" in head(pretrained)
    else:
        architecture = MEDConfig.load(catalog.model_folder(config.model))
        assert (architecture.vision.width, architecture.vision.image_size) == (size, 224)
        assert (config.optim.decay_rate, config.optim.warmup_steps, config.objective.exact) == (0.9, 3000, None)
        assert config.init_vision
        assert config.init_text


@pytest.mark.parametrize("name", CORPORA)
def test_web_texts_are_judged_by_the_papers_rule_and_human_ones_are_not_captioned(name: str) -> None:
    recipe = load(name, source="x")
    if name in ("paper/coco", "paper/vg"):
        assert (recipe.source.origin, recipe.capfilt.captioner) == ("human", None)
        return
    stage = recipe.capfilt
    assert (recipe.source.origin, stage.decoding, stage.top_p) == ("web", "nucleus", 0.9)
    assert (stage.captions_per_image, stage.threshold, stage.judge_by) == (1, 0.5, "itm")
    assert stage.captioner != stage.filter


PUBLISHED = {
    "cc3m": ("Train_GCC-training.tsv", 'a "dog\thttp://a/1.jpg\n"a cat\thttp://a/2.jpg\n'),
    "cc12m": ("cc12m.tsv", 'http://a/1.jpg\ta "dog\nhttp://a/2.jpg\t"a cat\n'),
    "sbu": (
        "sbu-captions-all.json",
        '{"image_urls": ["http://a/1.jpg", "http://a/2.jpg"], "user_names": ["x", "y"], '
        '"captions": ["a \\"dog", "\\"a cat"]}',
    ),
}
"""Files as they are published, cut to two rows: tables without a header line, with quotes that close nowhere."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipe_reads_the_published_table_that_its_command_names(name: str, tmp_path: Path) -> None:
    file, text = PUBLISHED[name]
    (tmp_path / file).write_text(text, encoding="utf-8")
    (named,) = re.findall(r"capfilt bootstrap (\S+) clean", head(f"paper/{name}"))[:1]
    assert named == file
    source = open_source(load(f"paper/{name}", source=str(tmp_path / named)).source)
    (part,) = source.parts(1000)
    rows = source.read(part).to_pylist()
    assert [row["url"] for row in rows] == ["http://a/1.jpg", "http://a/2.jpg"]
    assert [row["captions"][0]["text"] for row in rows] == ['a "dog', '"a cat']
    assert {row["captions"][0]["origin"] for row in rows} == {"web"}


def test_laions_tables_are_read_as_they_are(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"SAMPLE_ID": [1.0], "URL": ["http://a/1.jpg"], "TEXT": ["a dog"], "HEIGHT": [300], "similarity": [0.3]}
    pq.write_table(pa.table(columns), tmp_path / "part-00000.parquet")
    source = open_source(load("paper/laion", source=str(tmp_path)).source)
    (row,) = source.read(source.parts(10)[0]).to_pylist()
    assert (row["url"], row["captions"][0]["text"]) == ("http://a/1.jpg", "a dog")


def test_the_pages_script_makes_human_shards_that_training_and_bootstrap_read(tmp_path: Path) -> None:
    """The script of docs/paper.md, on a few pictures in the layouts of Karpathy and of BLIP."""
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    draw = random.Random(0)
    for folder in ("coco/train2014", "vg"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(3):
            (tmp_path / folder / f"{i}.png").write_bytes(shape_picture("red", "circle", draw))
    splits = ("train", "restval", "test")
    coco = [
        f'{{"filepath": "train2014", "filename": "{i}.png", "cocoid": {i}, "split": "{split}", '
        f'"sentences": [{{"raw": "a red circle"}}, {{"raw": "circle {i}"}}]}}'
        for i, split in enumerate(splits)
    ]
    (tmp_path / "dataset_coco.json").write_text(f'{{"dataset": "coco", "images": [{", ".join(coco)}]}}')
    rows = [f'{{"image": "{i % 3}.png", "caption": "red {i}"}}' for i in range(6)]
    (tmp_path / "vg_caption.json").write_text(f"[{', '.join(rows)}]")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)

    said = [item.texts for item in read([str(tmp_path / "data" / "coco" / "*.tar")])]
    assert said == [("a red circle", "circle 0"), ("a red circle", "circle 1")]
    shards = (str(tmp_path / "data" / "coco"), str(tmp_path / "data" / "vg"))
    assert Pairs(DataConfig(shards=shards, origins=("human",))).count() == 2 * 2 + 6
    source = open_source(load("paper/vg", source=str(tmp_path / "data" / "vg" / "*.tar")).source)
    (part,) = source.parts(1000)
    captions = [row["captions"] for row in source.read(part).to_pylist()]
    assert [len(row) for row in captions] == [2, 2, 2]
    assert {caption["origin"] for row in captions for caption in row} == {"human"}


def test_the_page_names_only_recipes_that_are_there() -> None:
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<=--recipe )paper/[a-z0-9-]+|(?<=`)paper/[a-z0-9-]+", page))
    assert set(TRAINED) <= named <= set(NAMES)
