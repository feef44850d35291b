"""The learning rate as a pure function of the step (paper, section 4.1; BLIP.md)."""

from __future__ import annotations

import math

from capfilt.train.config import OptimConfig


def lr_at(step: int, config: OptimConfig, *, steps_per_epoch: int, steps: int) -> float:
    """Linear warm-up, then ``step`` decay (a factor an epoch) or a cosine to the floor, by steps or by epochs.

    Before ``step`` the warm-up ends with the first epoch at the latest, as in the paper's code: later the decay would
    already have taken its share, and the rate would fall from its peak at once.

    Args:
        step: 0 for the first. steps_per_epoch, steps: at least 1.
    """
    warmup = min(config.warmup_steps, steps_per_epoch) if config.decay == "step" else config.warmup_steps
    if step < warmup:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / warmup
    if config.decay == "step":
        return max(config.min_lr, config.lr * config.decay_rate ** (step // steps_per_epoch))
    if config.decay == "cosine_epoch":
        done = (step // steps_per_epoch) * steps_per_epoch / steps
    else:
        done = (step - warmup) / max(1, steps - warmup)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * min(1.0, done))) / 2
