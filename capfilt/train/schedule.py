"""The learning rate as a pure function of the step (paper, section 4.1; BLIP.md)."""

from __future__ import annotations

import math

from capfilt.train.config import OptimConfig


def lr_at(step: int, config: OptimConfig, *, steps_per_epoch: int, steps: int) -> float:
    """Linear warm-up, then ``step`` decay (a factor an epoch) or a cosine to the floor.

    Args:
        step: 0 for the first. steps_per_epoch, steps: at least 1.
    """
    if step < config.warmup_steps:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / config.warmup_steps
    if config.decay == "step":
        return max(config.min_lr, config.lr * config.decay_rate ** (step // steps_per_epoch))
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * min(1.0, done))) / 2
