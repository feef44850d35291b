"""How fast pictures are captioned and filtered with models of BLIP-base size, beside transformers, on this machine.

    python -P benchmarks/capfilt.py [--images 16] [--batch 8] [--rounds 2] [--sides SIDE ...] [--device cuda]
                                    [--profile] [--out FILE]

The work, for every side the same: JPEG bytes in; one caption of 20 tokens by nucleus sampling; P(match) of that
caption and of a web text of about its length. Captioner and filter are two models with random weights at 384 px, the
same on all sides, and no caption ends early. The sides:

    capfilt float32 | bfloat16 | int8       the stage of this project
    transformers float32 | bfloat16         as its documentation shows: generate(), and each pair of image and text
                                            through BlipForImageTextRetrieval, which encodes the image for every text
    by hand float32 | bfloat16              transformers with what a user can do: fused attention where it is offered,
                                            the filter's image encoded once for its texts, inference mode, and on a GPU
                                            pictures prepared by as many threads as there are cores
    data-juicer float32                     the operators image_captioning_mapper and image_text_matching_filter of
                                            Data-Juicer, a picture at a time as they work; its fixed 128 new tokens are
                                            made 20. It needs other versions than this project: --data-juicer names the
                                            python of an environment with it (py-data-juicer 1.6.1, transformers 4.57)

Each side works in a process of its own, one after the other; turns alternate, so that a machine whose speed drifts
drifts for all. Figures are medians, and what is worth quoting are the ratios. ``limit`` is what this machine reaches in
a matrix product of the vision encoder's shape; ``share`` is what of it all the work amounts to that the task needs:
each model's vision once, cross-attention keys and values once, one token at a time, each text through the filter once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

MODEL = "blip/base-384"
NEW_TOKENS = 20
PROMPT = "a picture of"
SIDES = (
    "capfilt float32",
    "capfilt int8",
    "capfilt bfloat16",
    "transformers float32",
    "transformers bfloat16",
    "by hand float32",
    "by hand bfloat16",
)
ELSEWHERE = "data-juicer float32"
TEXTS = [
    "a vase of flowers sitting on a table by a window in the old house",
    "stock photo of a red car parked on a street at night with lights on",
    "how to draw a horse standing behind a fence in ten easy steps for kids",
    "img 2041 from our summer holiday with several boats docked in a harbor",
]
Work = Callable[[Sequence[bytes], Sequence[str]], list[list[float]]]
"""Pictures and their web texts in; P(match) of the web text and of the caption out."""


def make_models(folder: Path) -> None:
    import torch

    from capfilt.catalog import model_folder
    from capfilt.med.model import MED
    from capfilt.med.released import export_huggingface

    for seed, name in enumerate(("captioner", "filter")):
        torch.manual_seed(seed)
        model = MED.new(model_folder(MODEL)).only(name)
        model.save(folder / name)
        export_huggingface(model, folder / f"hf-{name}", holds=name)


def ours(folder: Path, dtype: str, threads: int, batch: int, device: str = "cpu") -> Work:
    from capfilt import records
    from capfilt.records import web_caption
    from capfilt.stages.capfilt import CapFilt
    from capfilt.stages.config import CapFiltConfig

    config = CapFiltConfig(
        captioner=str(folder / "captioner"),
        filter=str(folder / "filter"),
        max_length=4 + NEW_TOKENS,
        min_length=4 + NEW_TOKENS,
        dtype=dtype,
        device=device,
        cpus=float(threads),
        batch_size=batch,
    )
    stage = CapFilt(capfilt=config).open()

    def work(pictures: Sequence[bytes], texts: Sequence[str]) -> list[list[float]]:
        rows = [
            {"id": f"{at:032x}", "part": 0, "row": at, "image": picture, "captions": [web_caption(text)]}
            for at, (picture, text) in enumerate(zip(pictures, texts, strict=True))
        ]
        done = stage(records.table_of(rows))
        faults = [detail for detail in done.column("detail").to_pylist() if detail]
        if faults:
            raise SystemExit(f"{len(faults)} of {len(rows)} rows were quarantined, the first: {faults[0]}")
        return [[caption["itm"] for caption in row] for row in done.column("captions").to_pylist()]

    return work


def theirs(folder: Path, dtype: str, batch: int, device: str, *, by_hand: bool) -> Work:
    import io
    from concurrent.futures import ThreadPoolExecutor

    import torch
    from PIL import Image
    from transformers import AutoProcessor, BlipForConditionalGeneration, BlipForImageTextRetrieval

    how: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    captioner = BlipForConditionalGeneration.from_pretrained(folder / "hf-captioner", **how).eval().to(device)
    judge = BlipForImageTextRetrieval.from_pretrained(folder / "hf-filter", **how).eval().to(device)
    processor = AutoProcessor.from_pretrained(folder / "hf-captioner")
    length = {"min_length": 4 + NEW_TOKENS, "max_length": 4 + NEW_TOKENS}

    def caption(pixels: torch.Tensor) -> list[str]:
        prompt = processor.tokenizer([PROMPT] * len(pixels), return_tensors="pt", return_token_type_ids=False)
        prompt = prompt.to(device)
        ids = captioner.generate(pixel_values=pixels, **prompt, do_sample=True, top_p=0.9, top_k=0, **length)
        return processor.batch_decode(ids, skip_special_tokens=True)

    def match(pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """P(match) (B, 2) as the documentation has it: a picture for each text."""
        inputs = processor.tokenizer(list(texts), padding=True, truncation=True, max_length=35, return_tensors="pt").to(
            device
        )
        pairs = {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
        out = judge(pixel_values=pixels.repeat_interleave(2, 0), **pairs)
        return out.itm_score.float().softmax(-1)[:, 1].view(-1, 2)

    def match_once(pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """The same with each picture encoded once."""
        inputs = processor.tokenizer(list(texts), padding=True, truncation=True, max_length=35, return_tensors="pt").to(
            device
        )
        image = judge.vision_model(pixel_values=pixels).last_hidden_state.repeat_interleave(2, 0)
        states = judge.text_encoder(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long, device=device),
        ).last_hidden_state
        return judge.itm_head(states[:, 0]).float().softmax(-1)[:, 1].view(-1, 2)

    def prepared(pictures: Sequence[bytes]) -> torch.Tensor:
        some = [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures]
        return processor.image_processor(some, return_tensors="pt").pixel_values

    pool = ThreadPoolExecutor(os.cpu_count()) if by_hand and device != "cpu" else None

    def work(pictures: Sequence[bytes], texts: Sequence[str]) -> list[list[float]]:
        scores: list[list[float]] = []
        with torch.inference_mode() if by_hand else torch.no_grad():
            for first in range(0, len(pictures), batch):
                some = pictures[first : first + batch]
                pixels = torch.cat(list(pool.map(prepared, [[one] for one in some]))) if pool else prepared(some)
                pixels = pixels.to(device, how["dtype"])
                pairs = [
                    text for both in zip(texts[first : first + batch], caption(pixels), strict=True) for text in both
                ]
                scores += (match_once if by_hand else match)(pixels, pairs).tolist()
        return scores

    return work


def data_juicer(folder: Path) -> Work:
    from data_juicer.ops.filter.image_text_matching_filter import ImageTextMatchingFilter
    from data_juicer.ops.mapper.image_captioning_mapper import ImageCaptioningMapper
    from data_juicer.utils.constant import Fields, StatsKeys
    from data_juicer.utils.mm_utils import SpecialTokens
    from data_juicer.utils.model_utils import get_model

    captions = ImageCaptioningMapper(
        hf_img2seq=str(folder / "hf-captioner"), keep_original_sample=False, prompt=PROMPT, skip_op_error=False
    )
    judge = ImageTextMatchingFilter(hf_blip=str(folder / "hf-filter"), skip_op_error=False)
    model, _ = get_model(captions.model_key, None, False)
    generate = model.generate
    model.generate = lambda **how: generate(**how | {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS})
    kept = folder / "data-juicer"
    kept.mkdir(exist_ok=True)

    def match(file: str, text: str) -> float:
        said = f"{SpecialTokens.image} {text} {SpecialTokens.eoc}"
        stats = judge.compute_stats_single({"images": [file], "text": said, Fields.stats: {}})[Fields.stats]
        return stats[StatsKeys.image_text_matching_score][0]

    def work(pictures: Sequence[bytes], texts: Sequence[str]) -> list[list[float]]:
        scores = []
        for at, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            file = kept / f"{at}.jpg"  # its operators read files
            file.write_bytes(picture)
            batch = {"images": [[str(file)]], "text": [f"{SpecialTokens.image} {SpecialTokens.eoc}"]}
            (said,) = captions.process_batched(batch)["text"]
            caption = said.replace(SpecialTokens.image, "").replace(SpecialTokens.eoc, "").strip()
            scores.append([match(str(file), text), match(str(file), caption)])
        return scores

    return work


def child(job: dict[str, Any]) -> None:
    """One side: a line in is a turn to take, a line out what it took."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(job["threads"])
    side, _, dtype = job["side"].rpartition(" ")
    folder = Path(job["folder"])
    if side == "capfilt":
        work = ours(folder, dtype, job["threads"], job["batch"], job["device"])
    elif side == "data-juicer":
        work = data_juicer(folder)
    else:
        work = theirs(folder, dtype, job["batch"], job["device"], by_hand=side == "by hand")
    once = [Path(file).read_bytes() for file in job["pictures"]]
    pictures = [once[at % len(once)] for at in range(job["images"])]
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if job["device"] != "cpu" else [])]
    texts = [TEXTS[at % len(TEXTS)] for at in range(len(pictures))]
    for line in sys.stdin:
        profiled = json.loads(line)
        with profile(activities=kinds) if profiled else nullcontext() as seen:
            start, spent = time.perf_counter(), time.process_time()
            scores = work(pictures, texts)
            seconds, cpu = time.perf_counter() - start, time.process_time() - spent
        assert [len(row) for row in scores] == [2] * len(pictures)
        told = {"seconds": seconds, "cpu": cpu, "scores": scores}
        if job["device"] != "cpu":
            told["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if seen:
            on = "self_cpu_time_total" if job["device"] == "cpu" else "self_device_time_total"
            totals = {event.key: getattr(event, on) / 1000 for event in seen.key_averages()}
            told["self_ms"] = {k: round(v, 1) for k, v in sorted(totals.items(), key=lambda item: -item[1])[:20]}
        print(json.dumps(told), file=out, flush=True)


class Child:
    """A side in its own process."""

    def __init__(self, job: dict[str, Any]) -> None:
        python = job["data_juicer"] if job["side"] == ELSEWHERE else sys.executable
        command = [python, "-P", "-W", "ignore", __file__, "--job", json.dumps(job)]
        env = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
        if job["side"] == ELSEWHERE:
            env = {name: value for name, value in env.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=env, **pipes)

    def turn(self, *, profiled: bool = False) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(profiled), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a side died; what it said stands above")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def flops_an_image(folder: Path) -> dict[str, float]:
    """Floating-point operations of the task for one image, counted while it is done once; a multiply-add is two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from capfilt.catalog import sample

    picture = next(iter(sorted((sample() / "images").glob("*.jpg")))).read_bytes()
    work = ours(folder, "float32", torch.get_num_threads(), 1)
    with FlopCounterMode(display=False) as counter:
        work([picture], TEXTS[:1])
    return {str(name).rpartition(".")[2]: float(count) for name, count in counter.get_flop_counts()["Global"].items()}


def limit(dtype: str, threads: int, device: str, batch: int) -> float:
    """GFLOP/s of a linear layer of the vision encoder's widest shape, over a batch: the best of several runs."""
    import torch

    torch.set_num_threads(threads)
    kind = getattr(torch, dtype)
    x = torch.randn(batch * 577, 768, dtype=kind, device=device)
    layer = torch.nn.Linear(768, 3072).to(device, kind)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(12):
            start = time.perf_counter()
            layer(x)
            if device != "cpu":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return 2 * x.shape[0] * 768 * 3072 / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sides", nargs="+", choices=[*SIDES, ELSEWHERE], default=list(SIDES))
    parser.add_argument(
        "--data-juicer", metavar="PYTHON", help="the interpreter of an environment that has Data-Juicer"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="or cuda")
    parser.add_argument("--profile", action="store_true", help="one more turn of each side, profiled")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        child(options.job)
        return
    if options.data_juicer and ELSEWHERE not in options.sides:
        options.sides.append(ELSEWHERE)
    import torch

    from capfilt.catalog import sample

    # The sample has a broken picture too, on purpose.
    files = [str(file) for file in sorted((sample() / "images").glob("*.jpg")) if file.stem != "truncated"]
    files = files[: options.images]
    took: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
    profiles: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder)
        needed = flops_an_image(folder)
        limits = {
            dtype: round(limit(dtype, options.threads, options.device, options.batch), 1)
            for dtype in ("float32", "bfloat16")
        }
        total = sum(needed.values()) / 1e9
        print(f"{total:.1f} GFLOP an image; a matrix product reaches {limits} GFLOP/s", flush=True)
        job = {"folder": name, "pictures": files, "threads": options.threads}
        job |= {
            "data_juicer": options.data_juicer,
            "images": options.images,
            "batch": options.batch,
            "device": options.device,
        }
        for round_ in range(options.rounds):
            for side in options.sides:
                one = Child(job | {"side": side})
                one.turn()  # warms up
                took[side].append(one.turn())
                if options.profile and round_ == options.rounds - 1:
                    profiles[side] = one.turn(profiled=True)["self_ms"]
                one.close()
                print(f"{side:24} {options.images / took[side][-1]['seconds']:.3f} images/s", flush=True)
    sides = {}
    for side, turns in took.items():
        rate = statistics.median(options.images / turn["seconds"] for turn in turns)
        dtype = side.rpartition(" ")[2]
        sides[side] = {
            "images_per_s": round(rate, 3),
            "min": round(min(options.images / turn["seconds"] for turn in turns), 3),
            "max": round(max(options.images / turn["seconds"] for turn in turns), 3),
            "cpu_s_an_image": round(statistics.median(turn["cpu"] for turn in turns) / options.images, 2),
            **({"peak_gib": turns[-1]["peak_gib"]} if "peak_gib" in turns[-1] else {}),
            "share_of_limit": round(rate * total / limits.get(dtype, limits["float32"]), 2),
        }
    for peer in ("transformers float32", "transformers bfloat16", "by hand float32", ELSEWHERE):
        if peer in sides:
            for side in sides.values():
                side[f"to {peer}"] = round(side["images_per_s"] / sides[peer]["images_per_s"], 2)
    report = {
        "device": torch.cuda.get_device_name() if options.device != "cpu" else "cpu",
        "images": options.images,
        "batch": options.batch,
        "rounds": options.rounds,
        "threads": options.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "gflop_an_image": round(total, 1),
        "limit_gflops": limits,
        "sides": sides,
        **({"self_ms": profiles} if profiles else {}),
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
