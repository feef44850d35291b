"""Which texts of a picture are kept, decided by scores that are stored: no model, no picture.

The same rule as the stage that scored them, with two bounds more: which origins may stay, and how many texts. Knows
captions; knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from capfilt.captions import clean
from capfilt.errors import RecipeError, meant, require_within
from capfilt.records import Caption, Origin

Score = Literal["itm", "itc"]
SCORES: Mapping[str, str] = {"itm": "P(match)", "itc": "the cosine"}
"""What the scores are called."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a text needs to be kept."""

    threshold: float | None = None
    """Least score, P(match) in [0, 1] or a cosine in [-1, 1]; None asks for none, as where no filter ran."""
    judge_by: Score = "itm"
    """The score that decides, and that ranks texts where only the best stay."""
    best: int | None = None
    """Most texts of a picture, 1 or more, those of the highest score; None sets no bound."""
    origins: tuple[str, ...] = tuple(map(str, Origin))
    """Whose texts may stay."""

    def __post_init__(self) -> None:
        if self.judge_by not in get_args(Score):
            raise RecipeError(f"{self.judge_by!r} is no score", where="judge_by", mend="Use itm or itc.")
        if self.threshold is not None:
            require_within(self.judge_by, self.threshold, 0.0 if self.judge_by == "itm" else -1.0, 1.0)
        if self.best is not None:
            require_within("best", self.best, 1, 64)
        unknown = [origin for origin in self.origins if origin not in set(Origin)]
        if unknown or not self.origins:
            what = f"{unknown[0]!r} is no origin of a text" if unknown else "no origin is named"
            near = meant(unknown[0], Origin) if unknown else ""
            raise RecipeError(what, where="origins", mend=f"{near}Name some of: {', '.join(Origin)}.")

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> Rule:
        """The rule that a finished data set was made by."""
        stage, again = manifest["recipe"]["capfilt"], manifest["recipe"].get("refilter") or {}
        return cls(
            threshold=None if stage["filter"] is None else stage["threshold"],
            judge_by=stage["judge_by"],
            best=again.get("best"),
            origins=tuple(again.get("origins", map(str, Origin))),
        )

    @property
    def bounded(self) -> bool:
        """Whether more than the score decides: a bound on texts, or on whose. What is removed is not all noise then."""
        return self.best is not None or set(self.origins) != set(Origin)

    def verdicts(self, captions: Sequence[Caption]) -> list[bool]:
        """Whether each text of one picture is kept."""
        fit = [self.passes(caption) and bool(clean(caption["text"])) for caption in captions]
        if self.best is None or sum(fit) <= self.best:
            return fit
        ranked = sorted((at for at, fits in enumerate(fit) if fits), key=lambda at: -self._rank(captions[at]))
        stay = set(ranked[: self.best])
        return [at in stay for at in range(len(captions))]

    def passes(self, caption: Caption) -> bool:
        """Whether origin and score suffice, whatever the text says and however many others do."""
        if caption["origin"] not in self.origins:
            return False
        # Human texts join unfiltered (paper, section 3.3).
        if self.threshold is None or caption["origin"] == Origin.HUMAN:
            return True
        score = caption[self.judge_by]
        return score is not None and score >= self.threshold

    def told(self) -> str:
        """The rule in a few words, as in "P(match) >= 0.7, best 1, of web"."""
        pieces = [] if self.threshold is None else [f"{SCORES[self.judge_by]} >= {self.threshold:g}"]
        pieces += [f"best {self.best}"] if self.best else []
        pieces += [f"of {', '.join(self.origins)}"] if set(self.origins) != set(Origin) else []
        return ", ".join(pieces) or "every text"

    def _rank(self, caption: Caption) -> float:
        score = caption[self.judge_by]
        return -math.inf if score is None else score
