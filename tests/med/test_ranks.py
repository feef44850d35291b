"""Two gloo workers with half a batch each have the losses, gradients, queue and negatives of one with the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

from capfilt.med import ranks
from capfilt.med.config import MEDConfig, TextConfig
from capfilt.med.model import MED
from capfilt.med.tasks import Batch, CaptionerFinetune, FilterFinetune, Pretrain, Unmatched
from capfilt.med.tokenizer import MEDTokenizer, Tokens

STEPS, ROWS, WORKERS = 3, 8, 2
TEXTS = [
    "a red circle",
    "a blue square on white",
    "a red circle",
    "green",
    "a picture of a black square on white",
    "a black circle",
    "a blue square",
    "a green circle on white",
]
BOILERPLATE = {0: "part of a collection", 2: "green", 7: "a theme"}
"""By row; the second half has one and the first two."""
KINDS = ("pretrain", "pretrain without twin", "filter", "captioner")


def task_of(kind: str, folder: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    config = MEDConfig.load(folder)
    text = {**vars(config.text), "dropout": 0.0}
    model = MED(MEDConfig(**{**vars(config), "text": TextConfig(**text)}), MEDTokenizer.load(folder))
    with torch.no_grad():  # larger weights give a random model opinions
        for p in model.text.parameters():
            p.mul_(3 if p.dim() > 1 else 1)
    if kind == "captioner":
        return CaptionerFinetune(model, label_smoothing=0.1)
    if kind == "filter":
        return FilterFinetune(model, queue_size=20, momentum=0.9)
    twin = {"queue_size": 20, "momentum": 0.9} if kind == "pretrain" else {"queue_size": 0, "momentum": None}
    return Pretrain(model, label_smoothing=0.1, **twin)


def batch_of(task: torch.nn.Module, step: int, rank: int, size: int) -> Batch:
    """Rank's part of the step's batch; pictures 1 and 6 are one, texts 0 and 2 are one, and texts differ in length."""
    model = task.model
    side = model.config.vision.image_size
    pixels = torch.randn(ROWS, 3, side, side, generator=torch.Generator().manual_seed(step))
    pixels[6] = pixels[1]
    images = torch.arange(ROWS) + 100 * step
    images[6] = images[1]
    texts = torch.tensor([TEXTS.index(text) for text in TEXTS])
    mine = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
    rows = [row - mine.start for row in BOILERPLATE if mine.start <= row < mine.stop]
    nothing = model.tokenizer([BOILERPLATE[row + mine.start] for row in rows], max_tokens=12)
    return Batch(
        pixels[mine],
        model.tokenizer(TEXTS[mine], max_tokens=12),
        images[mine],
        texts[mine],
        Unmatched(nothing, torch.tensor(rows)),
    )


def run(kind: str, folder: Path) -> dict[str, torch.Tensor]:
    """A few steps of SGD by DistributedDataParallel; what there is at the end, and each step's losses."""
    rank, size = ranks.world()
    task = task_of(kind, folder)
    # Heads and directions that a finetuning does not use have no gradient, which the wrapper must be told.
    wrapped = task if size == 1 else DistributedDataParallel(task, find_unused_parameters=True)
    torch.manual_seed(7 + rank)  # only rank 0's draws may count
    told: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        losses = wrapped(batch_of(task, step, rank, size), alpha=0.4)
        torch.stack(list(losses.values())).sum().backward()
        for name, loss in losses.items():
            told[f"{step}/{name}"] = mean(loss.detach(), size)
        with torch.no_grad():
            for name, p in task.model.named_parameters():
                if p.grad is not None:
                    told[f"gradient/{step}/{name}"] = p.grad.clone()
                    p.sub_(0.05 * p.grad)
                    p.grad = None
    return told | {f"state/{name}": t.detach().clone() for name, t in task.state_dict().items()}


def mean(x: torch.Tensor, size: int) -> torch.Tensor:
    """The mean over ranks."""
    x = x.clone()
    if size > 1:
        dist.all_reduce(x)
    return x / size


def work(rank: int, kind: str, folder: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=WORKERS)
    told = run(kind, Path(folder))
    save_file({name: t.contiguous() for name, t in told.items()}, f"{out}/{rank}.safetensors")
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_are_one_process(kind: str, tiny_architecture: Path, tmp_path: Path) -> None:
    alone = run(kind, tiny_architecture)
    mp.spawn(work, (kind, str(tiny_architecture), str(tmp_path)), nprocs=WORKERS)
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(WORKERS)]
    assert set(alone) == set(found[0]) == set(found[1])
    losses = {"pretrain": 3, "pretrain without twin": 3, "filter": 2, "captioner": 1}[kind]
    assert len([name for name in alone if name.count("/") == 1 and name[0].isdigit()]) == losses * STEPS
    for name, wanted in alone.items():
        torch.testing.assert_close(found[0][name], wanted, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=0)


def ask(rank: int, out: str) -> None:
    """Rank 0 asks for two of its own three rows, rank 1 for one of rank 0's and for two of its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=WORKERS)
    x = (torch.arange(3.0)[:, None] + 10 * rank).requires_grad_()
    others, places = ranks.from_others(x, torch.tensor([[0, 2], [1, 5, 3]][rank]))
    seen = torch.cat([x, others]).index_select(0, places)
    seen.sum().backward()
    found = {"others": others.detach(), "seen": seen.detach(), "gradient": x.grad}
    save_file(found, f"{out}/{rank}.safetensors")
    dist.destroy_process_group()


def test_rows_of_other_ranks_come_when_asked_for_and_their_gradients_go_back(tmp_path: Path) -> None:
    mp.spawn(ask, (str(tmp_path),), nprocs=WORKERS)
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(WORKERS)]
    told = [{name: t.flatten().tolist() for name, t in mine.items()} for mine in found]
    assert told[0] == {"others": [], "seen": [0, 2], "gradient": [1, 1, 1]}
    assert told[1] == {"others": [1], "seen": [1, 12, 10], "gradient": [1, 0, 1]}


def test_half_a_batch_alone_is_something_else(tiny_architecture: Path) -> None:
    """What the test above compares does depend on the other worker."""
    whole, half = (task_of("pretrain", tiny_architecture) for _ in range(2))
    torch.manual_seed(7)
    a = whole(batch_of(whole, 0, 0, 1), alpha=0.4)
    torch.manual_seed(7)
    b = [half(batch_of(half, 0, rank, 2), alpha=0.4) for rank in range(2)]
    for name in ("itc", "itm", "lm"):
        assert abs(a[name].item() - (b[0][name] + b[1][name]).item() / 2) > 2e-4, name


def test_without_other_ranks_nothing_is_copied() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert ranks.gathered_with_gradient(x) is x
    assert ranks.gathered(x) is x
    rows = torch.tensor([2, 0])
    others, places = ranks.from_others(x, rows)
    assert others is None
    assert places is rows
    assert ranks.share(3, x.device) == 1.0
    tokens = Tokens(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))
    assert ranks.gathered_texts(tokens.ids, tokens.mask)[0] is tokens.ids
