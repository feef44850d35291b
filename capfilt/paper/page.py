"""A table's results beside the paper's: as text, as Markdown, as a plot, and whether they point the same way.

Knows the results' JSON; runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

LEAST = 0.2
"""Differences of the paper's below this, in its own units, count as none: 127.8 and 127.7 are equal."""
_DPI = 120


def cells(told: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: each arm's figures with their spread, the paper's beside them where it has them."""
    arms = told["arms"]
    papers = [name for name in _paper_names(told) if name not in told["show"]]
    head = ["arm"]
    for name in told["show"]:
        head += [name] + (["paper"] if _has(arms, name) else [])
    head += [f"paper: {name}" for name in papers]
    head += [f"{name} against {_first(told)['title']}" for name in ("CIDEr", "recall")]
    rows = []
    for arm in arms:
        row = [arm["title"]]
        for name in told["show"]:
            row += [_figure(arm, name)] + ([_number(arm["paper"].get(name))] if _has(arms, name) else [])
        row += [_number(arm["paper"].get(name)) for name in papers]
        row += [verdict(told, arm["name"], name) for name in ("CIDEr", "recall")]
        rows.append(row)
    return head, rows


def markdown(told: Mapping[str, Any]) -> str:
    """The table, and below it what it was made from and what it cost."""
    head, rows = cells(told)
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
    done = min(len(arm["units"]) for arm in told["arms"])
    cost = f"{told['cpu_s'] / 60:.0f} minutes of one core, what it shares with other tables counted"
    return "\n".join([*lines, "", f"{done} seed{'s' if done != 1 else ''} in {told['precision']}; {cost}.", ""])


def verdict(told: Mapping[str, Any], key: str, name: str) -> str:
    """An arm's difference from the first one: its size, whether it is beyond the spread, and whether the paper's has
    the same sign. The spread is the larger of the two arms' standard deviations."""
    first, arm = _first(told), next(arm for arm in told["arms"] if arm["name"] == key)
    if arm is first or not arm["units"]:
        return ""
    gain = arm["mean"][name] - first["mean"][name]
    beyond = abs(gain) > max(arm["spread"][name], first["spread"][name]) and len(arm["units"]) > 1
    said = f"{gain:+.1f}, {'beyond' if beyond else 'within'} the spread"
    if len(arm["units"]) < 2:
        said = f"{gain:+.1f}, one seed"
    theirs = _difference(first["paper"], arm["paper"], name)
    if theirs is None:
        return said
    if abs(theirs) < LEAST:
        return f"{said}; paper: no difference"
    return f"{said}; paper: {theirs:+.1f}, {'the same way' if gain * theirs > 0 else 'the other way'}"


def _difference(first: Mapping[str, float], arm: Mapping[str, float], name: str) -> float | None:
    """The paper's: for our mean of recalls its mean of TR@1 and IR@1."""
    names = ("TR@1", "IR@1") if name == "recall" else (name,)
    if not all(part in side for part in names for side in (first, arm)):
        return None
    return sum(arm[part] - first[part] for part in names) / len(names)


def _first(told: Mapping[str, Any]) -> Any:
    return told["arms"][0]


def _paper_names(told: Mapping[str, Any]) -> list[str]:
    return sorted({name for arm in told["arms"] for name in arm["paper"]})


def _has(arms: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(name in arm["paper"] for arm in arms)


def _figure(arm: Mapping[str, Any], name: str) -> str:
    if not arm["units"] or name not in arm["mean"]:
        return ""
    spread = f" ± {arm['spread'][name]:.1f}" if len(arm["units"]) > 1 else ""
    return f"{arm['mean'][name]:.1f}{spread}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def draw(told: Mapping[str, Any], format: str = "png") -> bytes | None:  # noqa: A002  matplotlib's word
    """CIDEr and recall of each arm with their spread, each seed a dot, and the paper's CIDEr where it has one; None
    where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra
    except ImportError:
        return None
    arms = [arm for arm in told["arms"] if arm["units"]]
    names = ["CIDEr", "recall"]
    theirs = [arm for arm in arms if "CIDEr" in arm["paper"]]
    count = len(names) + bool(theirs)
    figure = Figure(figsize=(3.6 * count, 0.9 + 0.42 * len(arms)), layout="constrained")
    axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for at, name in zip(axes, names, strict=False):
        for row, arm in enumerate(arms):
            at.barh(row, arm["mean"][name], xerr=arm["spread"][name], color="#7a9cc6", height=0.6)
            own = [unit["figures"][name] for unit in arm["units"]]
            at.plot(own, [row] * len(own), "k.", markersize=4)
        at.set_title(f"{name}, ours", fontsize="medium")
        at.grid(axis="x", alpha=0.3)
    if theirs:
        for row, arm in enumerate(arms):
            if "CIDEr" in arm["paper"]:
                axes[-1].plot(arm["paper"]["CIDEr"], row, "D", color="#c67a4a")
        axes[-1].set_title("CIDEr, paper", fontsize="medium")
        axes[-1].grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(arms)), [arm["title"] for arm in arms], fontsize="small")
    axes[0].invert_yaxis()
    file = BytesIO()
    figure.savefig(file, dpi=_DPI, format=format)
    return file.getvalue()
