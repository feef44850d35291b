"""Nucleus sampling on a GPU as CUDA graphs: a few steps are one launch instead of some thousand.

Written eagerly, a step is some 300 small kernels, and the GPU waits for each to be launched. Recorded once for a number
of images, they are played again for every batch: same kernels, same captions.

Knows decoding; knows no text and no pictures.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from capfilt.med.decoding import LOOKS, Limits, Nucleus, Written, draws, texts
from capfilt.med.device import sent
from capfilt.med.text import TextStack

HELD = 3
"""Recordings that are kept, each with keys and values of its own: whole batches, and smaller ones at ends of parts."""


class Recorded:
    """The steps for ``images`` images with ``repeat`` captions each.

    Args:
        text: on a GPU, in eval mode; its weights may change later, not move.
        like: image tokens (B, N, V): their shape and dtype.
        repeat: K.
    """

    def __init__(
        self, text: TextStack, like: Tensor, prompt_L: Sequence[int], repeat: int, how: Nucleus, limits: Limits
    ) -> None:
        self.prompt, self.repeat, self.limits = list(prompt_L), repeat, limits
        self.steps = limits.max_length - len(prompt_L)
        self.image_BNV = torch.zeros_like(like)
        shape = (len(like) * repeat, max(self.steps, 1))
        self.uniform_RS = torch.full(shape, 0.5, dtype=torch.float64, device=like.device)
        with torch.cuda.device(like.device):
            self._warm_up(text, how)
            self._record(text, how)

    def _record(self, text: TextStack, how: Nucleus) -> None:
        self.parts: list[tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = []
        pool = torch.cuda.graph_pool_handle()
        now: Written | None = None
        for first in range(0, self.steps, LOOKS["cuda"]):
            graph = torch.cuda.CUDAGraph()
            # Another thread may be using the GPU meanwhile, which is none of this recording's business.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                if now is None:
                    now = self._start(text)
                for step in range(first, min(first + LOOKS["cuda"], self.steps)):
                    now.go_on(text, step, how, self.limits)
                done = now.done_R.all()
            self.parts.append((graph, done, now.ids_RL))
        self.caches = now.caches if now else []  # which the graphs read and write

    def _start(self, text: TextStack) -> Written:
        return Written.start(text, self.image_BNV, self.prompt, self.uniform_RS, self.limits)

    def _warm_up(self, text: TextStack, how: Nucleus) -> None:
        """Kernels choose their algorithms, and constants are sent, at first use: neither can be recorded."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            now = self._start(text)
            for step in range(self.steps):
                now.go_on(text, step, how, self.limits)
        torch.cuda.current_stream().wait_stream(aside)

    def __call__(self, image_BNV: Tensor, seeds: Sequence[Sequence[int]]) -> list[list[list[int]]]:
        """As :func:`capfilt.med.decoding.nucleus`, for as many images as were recorded, or fewer."""
        count = len(image_BNV)
        self.image_BNV[:count] = image_BNV
        self.uniform_RS[: count * self.repeat] = sent(draws(seeds, self.steps), image_BNV.device)
        ids_RL = self.uniform_RS.new_empty((len(self.uniform_RS), 0))
        for graph, done, ids_RL in self.parts:  # noqa: B007 the last one that was played
            graph.replay()
            if done.item():
                break
        return texts(ids_RL[: count * self.repeat].tolist(), self.repeat, len(self.prompt), self.limits)


class Recordings:
    """Records for each number of images that comes, rounded up to a power of 2, and keeps the last few."""

    def __init__(self, text: TextStack, prompt_L: Sequence[int], how: Nucleus, limits: Limits) -> None:
        self.text, self.prompt, self.how, self.limits = text, list(prompt_L), how, limits
        self.held: OrderedDict[tuple[int, int], Recorded] = OrderedDict()

    def write(self, image_BNV: Tensor, seeds: Sequence[Sequence[int]]) -> list[list[list[int]]]:
        """As :func:`capfilt.med.decoding.nucleus`."""
        images, repeat = 1 << (len(image_BNV) - 1).bit_length(), len(seeds[0])
        key = (images, repeat)
        if key not in self.held:
            while len(self.held) >= HELD:
                self.held.popitem(last=False)
            like = image_BNV.new_empty((images, *image_BNV.shape[1:]))
            self.held[key] = Recorded(self.text, like, self.prompt, repeat, self.how, self.limits)
        self.held.move_to_end(key)
        return self.held[key](image_BNV, seeds)
