"""What must hold on a GPU. Skipped where there is none: run these on a machine with one after touching the models."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from capfilt.catalog import model_folder, sample
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.decoding import Limits, Nucleus, nucleus
from capfilt.med.device import precision_of
from capfilt.med.filter import MEDFilter
from capfilt.med.pixels import batch_of
from capfilt.records import table_of, web_caption
from capfilt.roles import Writing
from capfilt.stages.config import CapFiltConfig
from capfilt.stages.worker import CapFiltWorker, open_worker
from capfilt.train.config import DataConfig, TrainConfig
from capfilt.train.run import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
FILES = sorted((sample() / "images").glob("*.[jp][pn]g"))


def pictures(count: int) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in FILES[:: max(1, len(FILES) // count)][:count]]


def test_captions_and_scores_are_those_of_a_cpu() -> None:
    shown = pictures(48)
    names = [[file.stem.replace("-", " "), "a red car on a street"] for file in FILES[:48]]
    scores, texts = {}, {}
    for device in ("cpu", "cuda"):
        judge = MEDFilter.load(model_folder("med-mini/filter"), device=device)
        scores[device] = [score.itm or 0.0 for row in judge.score(shown, names) for score in row]
        captioner = MEDCaptioner.load(model_folder("med-mini/captioner"), Writing(), device=device)
        texts[device] = captioner.write(shown, [[at, at + 1000] for at in range(48)])
    assert max(abs(a - b) for a, b in zip(scores["cpu"], scores["cuda"], strict=True)) < 2e-2
    # A draw that falls within rounding of another word's share may go the other way.
    assert sum(a == b for a, b in zip(texts["cpu"], texts["cuda"], strict=True)) >= 44


@pytest.mark.parametrize("dtype", ["auto", "float16"])
def test_lower_precision_keeps_the_verdicts(dtype: str) -> None:
    shown = pictures(96)
    names = [file.stem.replace("-", " ") for file in FILES[:: max(1, len(FILES) // 96)][:96]]
    texts = [[name, names[(at + 1) % 96]] for at, name in enumerate(names)]
    kinds = (torch.float32, precision_of(dtype, "cuda"))
    filters = [MEDFilter.load(model_folder("med-mini/filter"), device="cuda", dtype=kind) for kind in kinds]
    exact, near = ([(score.itm or 0.0) >= 0.5 for row in one.score(shown, texts) for score in row] for one in filters)
    assert sum(a == b for a, b in zip(exact, near, strict=True)) >= 0.98 * len(exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_steps_write_what_plain_steps_write(dtype: torch.dtype) -> None:
    plain, recorded = (
        MEDCaptioner.load(model_folder("med-mini/captioner"), Writing(recorded=on), device="cuda", dtype=dtype)
        for on in (False, True)
    )
    shown = pictures(40)
    for count in (32, 8, 32, 30):  # whole, smaller, again, and fewer than were recorded
        seeds = [[at, at + 1000] for at in range(count)]
        # A batch that is filled up may round otherwise, and a draw near a border then goes the other way.
        same = zip(plain.write(shown[:count], seeds), recorded.write(shown[:count], seeds), strict=True)
        assert sum(a == b for a, b in same) >= (count if count in (32, 8) and dtype == torch.float32 else count - 2)


def test_a_part_goes_through_two_turns_at_once_as_through_one() -> None:
    config = CapFiltConfig(batch_size=16, device="cuda", dtype="float32", gpus=1.0, cpus=4.0)
    worker = open_worker(config)
    one = CapFiltWorker(config, worker.captioner, worker.judge, device="cuda", turns=1)
    rows = [
        {"id": f"{at:032x}", "part": 0, "row": at, "image": file.read_bytes(), "captions": [web_caption(file.stem)]}
        for at, file in enumerate(FILES[:100])
    ]
    two_turns, one_turn = (some(table_of(rows)).to_pylist() for some in (worker, one))
    texts = [[[c["text"] for c in row["captions"]] for row in done] for done in (two_turns, one_turn)]
    assert not any(row["drop"] for row in two_turns)
    assert sum(a == b for a, b in zip(*texts, strict=True)) >= 97


def test_nothing_waits_for_the_gpu_between_two_looks() -> None:
    captioner = MEDCaptioner.load(model_folder("med-mini/captioner"), Writing(), device="cuda")
    model = captioner.model
    image_BNV = model.encode_image(batch_of(pictures(8), captioner.image_size, model.device))
    prompt, seeds = [model.tokenizer.dec], [[at] for at in range(8)]
    limits = Limits(max_length=16, min_length=16, end=model.tokenizer.sep, forbidden=(0,))
    modes: list[int] = []
    step = model.text.write_step

    def watched(*args: object) -> torch.Tensor:
        # From the first step on, until what was written is read at the end.
        torch.cuda.set_sync_debug_mode("error")
        modes.append(1)
        return step(*args)  # type: ignore[arg-type]

    model.text.write_step = watched  # type: ignore[method-assign, assignment]
    try:
        with torch.inference_mode(), pytest.raises(RuntimeError, match="synchroniz"):
            nucleus(model.text, image_BNV, prompt, seeds, Nucleus(), limits, look_every=1000)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(modes) == 15, "a step before the last read waited for the GPU"


def test_held_out_losses_leave_the_gpus_generator_as_it_is(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    """Dropout of a run that measures them would be another's from the first measuring on."""
    data = DataConfig(shards=(str(shape_shard),), shuffle_buffer=16)
    plain = TrainConfig(
        model=str(tiny_architecture), steps=4, batch_size=16, checkpoint_every=2, data=data, device="cuda"
    )
    states = []
    for name, shards in (("plain", ()), ("held", (str(shape_shard),))):
        train(replace(plain, out=str(tmp_path / name), held_out=shards, held_out_batches=2))
        states.append(load_file(tmp_path / name / "checkpoints" / "step-00000004" / "state.safetensors"))
    one, other = ({name: state[name] for name in ("rng/cpu/0", "rng/cuda/0")} for state in states)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_whole_loop_runs_on_a_gpu(tmp_path: Path) -> None:
    """Fetch, caption, filter, write, verify, train: in a process of its own, where warnings are a library's affair."""
    code = "from capfilt.cli.main import run; run()"

    def capfilt(*args: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    capfilt("quickstart", str(tmp_path / "out"), "--runner", "local", "--quiet")
    manifest = json.loads((tmp_path / "out" / "data" / "manifest.json").read_text())
    assert manifest["recipe"]["capfilt"]["dtype"] == "auto"
    assert "ok: the books balance" in capfilt("verify", str(tmp_path / "out" / "data"))
    assert (tmp_path / "out" / "model" / "model" / "model.safetensors").is_file()
