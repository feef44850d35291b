"""How fast one pretraining step of ViT-B size is on this machine's CPU, and how much memory it takes at most.

    python -P benchmarks/train.py [--batch 8] [--rounds 3] [--steps 4] [--threads N] [--profile] [--out FILE]
                                  [--blip DIR --transformers DIR]

A step is forward by ITC, ITM and LM with the momentum twin and a full queue, backward, and AdamW, at 224 px, from
random weights, with 32 pictures of the bundled sample and 32 captions. With ``--blip``, a checkout of
github.com/salesforce/BLIP, the step of the published code takes part; it needs transformers 4.30 or older, unpacked in
``--transformers``. That code runs from where it is, with its own training loop; what is put in its way is what one
process without GPU and network needs, said beside it.

Each side takes its steps in a process of its own, one after the other, since two do not fit into 16 GiB; their turns
alternate, so that a machine whose speed drifts drifts for all. Figures are medians, and what is worth quoting are the
ratios. ``cpu_s`` is what a step took of all cores together: where other programs run, it says more than time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors.torch import load_file, save_file
from torch.profiler import ProfilerActivity, profile

MODEL = "blip/base-224"
STEPS = 10**6
"""Of an epoch that is never finished: the learning rate and alpha stay where they start, in both codes."""
CAPTIONS = """
a man riding a wave on top of a surfboard in the ocean
two dogs playing with a red frisbee in the grass
a plate of food with broccoli rice and chicken
a group of people sitting around a wooden table with laptops
a black cat sleeping on a couch next to a remote
a city street filled with cars and a yellow bus
a young girl holding an umbrella in the rain
a baseball player swinging a bat at a ball
a kitchen with a stove a refrigerator and white cabinets
a train traveling down tracks near a small station
a bathroom with a toilet a sink and a mirror
a herd of sheep grazing on a lush green hillside
a person flying a kite on a sandy beach
a slice of pizza on a white paper plate
two giraffes standing next to each other near some trees
a man in a suit talking on his cell phone
a vase of flowers sitting on a table by a window
an airplane flying through a cloudy blue sky over the mountains
a skateboarder doing a trick on a ramp in a park
a bowl of fruit with bananas apples and oranges
a stop sign at the corner of a quiet street
a woman cutting a birthday cake with her children
a brown horse standing in a field behind a fence
a clock tower in the middle of a town square
several boats docked in a harbor at sunset
a teddy bear sitting on a bed with a book
a tennis player about to serve the ball on a court
an elephant walking through tall grass beside a river
a motorcycle parked in front of a brick building
a desk with a computer monitor keyboard and a mouse
a snowboarder jumping over a pile of snow on a mountain
a bench in a park covered with fallen leaves
""".strip().splitlines()
"""As long as those of COCO, cleaned already; what they say has no part in speed."""


class Child:
    """One side in its own process; a line in is a step to take, a line out what it took."""

    def __init__(self, job: dict[str, Any]) -> None:
        # Published code warns of what has moved since.
        command = [sys.executable, "-P", "-W", "ignore", __file__, "--job", json.dumps(job)]
        # Threads that wait are to sleep: their spinning would count as work.
        threads = {"OMP_NUM_THREADS": str(job["threads"]), "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            command, env=os.environ | threads, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def step(self, batch: int, profiled: bool = False) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([batch, profiled]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a side died; what it said stands above")
        return json.loads(line)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Turns:
    """The child's end: batches come when they are asked for, and the time until the next is asked for is told."""

    def __init__(self, job: dict[str, Any], pixels_as: str) -> None:
        # Published code prints: what it says goes to stderr, and stdout is the parent's alone.
        self.out: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        pixels = load_file(job["pixels"])[pixels_as].split(job["batch"])
        texts = [CAPTIONS[i : i + job["batch"]] for i in range(0, len(CAPTIONS), job["batch"])]
        self.batches = list(zip(pixels, texts, strict=True))
        self.losses: list[float] = []
        # What the published loop asks of its loader and of its losses.
        self.dataset, self.sampler = None, types.SimpleNamespace(set_epoch=lambda epoch: None)

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[tuple[torch.Tensor, list[str]]]:
        for line in sys.stdin:
            batch, profiled = json.loads(line)
            with profile(activities=[ProfilerActivity.CPU]) if profiled else nullcontext() as seen:
                start, spent = time.perf_counter(), time.process_time()
                yield self.batches[batch]
                seconds, cpu = time.perf_counter() - start, time.process_time() - spent
            told = {
                "seconds": seconds,
                "cpu": cpu,
                "losses": self.losses,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "self_ms": shares(seen) if seen else {},
            }
            print(json.dumps(told), file=self.out, flush=True)
        raise SystemExit  # behind its last step the published loop asks the GPUs for averages

    def note(self, _module: Any, _given: Any, losses: Any) -> None:
        """A forward hook."""
        values = losses.values() if isinstance(losses, dict) else losses
        self.losses = [round(float(loss), 4) for loss in values]


def shares(seen: profile) -> dict[str, float]:
    """The ten operators that took most time themselves, in ms, and the sum of all."""
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
    top = {row.key: round(row.self_cpu_time_total / 1000, 1) for row in rows[:10]}
    return {"all": round(sum(row.self_cpu_time_total for row in rows) / 1000, 1)} | top


def ours(job: dict[str, Any]) -> None:
    """Our step: the training loop's own, private as it is, so that what is measured is what trains."""
    from capfilt.catalog import model_folder
    from capfilt.med.model import MED
    from capfilt.train.begin import task_of
    from capfilt.train.config import ObjectiveConfig, TrainConfig
    from capfilt.train.data import Raw
    from capfilt.train.run import _Run

    # The published queue starts full; one that fills would be cheaper.
    objective = ObjectiveConfig(exact="blip")
    config = TrainConfig(
        model=MODEL, batch_size=job["batch"], precision=job["precision"], device="cpu", objective=objective
    )
    model = MED.new(model_folder(MODEL))
    task = task_of(config, model).train()
    turns = Turns(job, "uint8")
    task.register_forward_hook(turns.note)
    run = _Run(config, task, torch.device("cpu"), slice(job["batch"]), STEPS, STEPS)
    for i, (pixels, texts) in enumerate(turns):
        tokens = model.tokenizer(texts, max_tokens=30)  # theirs does so within the step
        rows = torch.arange(job["batch"])
        run._step([Raw(pixels, tokens, rows, rows, names=())], i, config.optim.warmup_lr)


def theirs(job: dict[str, Any]) -> None:
    """The published step: ``pretrain.train`` on ``models/blip_pretrain.py``."""
    sys.path[:0] = [job["transformers"], job["blip"]]
    # Imported by files we use and asked for nothing: checkpointed activations (off in its pretrain.yaml), its readers
    # of files, and the YAML of its command line.
    for name, holds in {
        "fairscale.nn.checkpoint.checkpoint_activations": ["checkpoint_wrapper"],
        "data": ["create_dataset", "create_sampler", "create_loader"],
        "ruamel_yaml": [],
    }.items():
        for part in (name.rsplit(".", n)[0] for n in range(name.count("."), -1, -1)):
            sys.modules[part] = types.ModuleType(part)
        vars(sys.modules[name]).update(dict.fromkeys(holds))
    turns = Turns(job, "normalised")
    blip_pretrain, med = (importlib.import_module(f"models.{name}") for name in ("blip_pretrain", "med"))
    # No downloads: the words from our folder, which are BERT's, and random weights where DeiT's and BERT's would start.
    words = blip_pretrain.BertTokenizer
    words.from_pretrained = classmethod(lambda cls, _: cls(job["vocab"]))
    torch.hub.load_state_dict_from_url = lambda **_: {"model": {}}
    for kind in (med.BertModel, med.BertLMHeadModel):
        kind.from_pretrained = classmethod(lambda cls, _, config, **more: cls(config=config, **more))
    # It gathers features from all processes, of which there is one.
    with tempfile.TemporaryDirectory() as meet:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meet}/meet", rank=0, world_size=1)
    # The settings of its pretrain.yaml.
    config = {"laion_path": "", "alpha": 0.4, "warmup_steps": 3000, "warmup_lr": 1e-6, "init_lr": 3e-4}
    with chdir(job["blip"]):  # its configs' paths are relative
        model = blip_pretrain.blip_pretrain(image_size=224, vit="base", vit_grad_ckpt=False, queue_size=57600)
    model.register_forward_hook(turns.note)
    optimizer = torch.optim.AdamW(params=model.parameters(), lr=config["init_lr"], weight_decay=0.05)
    importlib.import_module("pretrain").train(model, turns, optimizer, 0, torch.device("cpu"), config)


@contextmanager
def chdir(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def prepare(folder: Path) -> str:
    """The sample's pictures in one file, each as the loader of a side gives them."""
    from capfilt import images
    from capfilt.catalog import sample
    from capfilt.med.pixels import normalise, to_uint8

    files = sorted((sample() / "images").glob("*.[jp][pn]g"))
    found = (images.normalise(file.read_bytes(), images.ImageLimits()) for file in files)
    pictures = [images.decode(p.data) for p in found if isinstance(p, images.Picture)][: len(CAPTIONS)]
    pixels = torch.stack([to_uint8(picture, 224) for picture in pictures])
    save_file({"uint8": pixels, "normalised": normalise(pixels)}, folder / "pixels.safetensors")
    return str(folder / "pixels.safetensors")


def processor() -> dict[str, Any]:
    """What this CPU calls itself, and whether it multiplies bfloat16 by itself."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = fields.get("flags", "").split()
    return {
        "model": fields.get("model name", platform.processor()),
        "avx512": "avx512f" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "amx_bf16": "amx_bf16" in flags,
    }


def measure(options: argparse.Namespace, jobs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Speed, peak memory and losses of each side, and how all of them stand to the first."""
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    profiled: dict[str, dict[str, float]] = {}
    batches = len(CAPTIONS) // options.batch
    for round_ in range(options.rounds):
        for name, job in jobs.items():
            with Child(job) as child:
                for i in range(options.steps + 1):
                    said = child.step(i % batches)
                    times = f"{said['seconds']:7.2f} s {said['cpu']:7.2f} cpu_s"
                    print(f"{round_:3} {name:20} {times} {said['losses']}", file=sys.stderr, flush=True)
                    if i:  # the first step warms up
                        told[name].append(said)
                if options.profile and round_ == options.rounds - 1:
                    profiled[name] = child.step(0, profiled=True)["self_ms"]
    sides = {name: summary(options.batch, steps) for name, steps in told.items()}
    first = next(iter(sides.values()))
    for name, side in sides.items():
        side["speed_to_first"] = round(side["samples_per_s"]["median"] / first["samples_per_s"]["median"], 2)
        side["cpu_speed_to_first"] = round(first["cpu_s"]["median"] / side["cpu_s"]["median"], 2)
        side["memory_to_first"] = round(side["peak_mib"] / first["peak_mib"], 2)
        if profiled:
            side["profile_self_ms"] = profiled[name]
    return sides


def summary(batch: int, steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "samples_per_s": spread([batch / step["seconds"] for step in steps]),
        "cpu_s": spread([step["cpu"] for step in steps]),
        "peak_mib": round(max(step["peak_mib"] for step in steps)),
        "last_losses": steps[-1]["losses"],
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="a divisor of 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="of each side in each round, behind one that warms up")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=["float32", "bfloat16"], nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--profile", action="store_true", help="adds where the time of one more step goes")
    parser.add_argument("--blip", type=Path)
    parser.add_argument("--transformers", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        torch.set_num_threads(options.job["threads"])
        torch.manual_seed(0)
        (theirs if "blip" in options.job else ours)(options.job)
        return
    from capfilt.catalog import model_folder
    from capfilt.med.tokenizer import vocabulary

    with tempfile.TemporaryDirectory() as folder:
        job = {"batch": options.batch, "threads": options.threads, "pixels": prepare(Path(folder))}
        jobs: dict[str, dict[str, Any]] = {}
        if options.blip:
            vocab = str(vocabulary(model_folder(MODEL)).resolve())
            places = {"blip": str(options.blip.resolve()), "transformers": str(options.transformers.resolve())}
            jobs["BLIP float32"] = job | places | {"vocab": vocab}
        jobs |= {f"capfilt {precision}": job | {"precision": precision} for precision in options.precision}
        sides = measure(options, jobs)
    result = {
        "batch": options.batch,
        "rounds": options.rounds,
        "steps_a_round": options.steps,
        "threads": options.threads,
        "cpu": processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "sides": sides,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
