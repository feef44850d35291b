"""docs/performance.md quotes the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def sides(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["sides"]
    return found


def test_the_gpus_table() -> None:
    found = sides("capfilt-h200")
    for name, side in found.items():
        peer = found[f"transformers {name.rpartition(' ')[2]}"]
        same = side["images_per_s"] / peer["images_per_s"]
        cells = [f"{side['images_per_s']:.0f}", f"{same:.2f}", f"{side['to transformers float32']:.2f}"]
        cells += [f"{side['peak_gib']:.1f}", f"{side['share_of_limit']:.2f}"]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE


def test_the_table_of_a_cpu_with_bfloat16() -> None:
    found = sides("capfilt")
    for name, side in found.items():
        peer = found.get(f"transformers {name.rpartition(' ')[2]}")
        cells = [f"{side['images_per_s']:.2f}", f"{side['images_per_s'] / peer['images_per_s']:.2f}" if peer else "-"]
        cells += [f"{side['to transformers float32']:.2f}", f"{side['to data-juicer float32']:.2f}"]
        cells += [f"{side['cpu_s_an_image']:.2f}", f"{side['share_of_limit']:.2f}"]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE


def test_the_profile_of_a_cpu_with_bfloat16() -> None:
    told = json.loads((ROOT / "benchmarks" / "results" / "capfilt-profile.json").read_text())
    spent = told["self_ms"]["capfilt bfloat16"]
    whole = sum(spent.values())
    attention = "aten::_scaled_dot_product_flash_attention_for_cpu"
    shares = {
        name: f"{100 * spent[name] / whole:.0f} %" for name in ("aten::addmm", attention, "aten::copy_", "aten::sort")
    }
    assert f"{shares['aten::addmm']} are linear layers" in PAGE
    assert f"{shares[attention]} are attention, {shares['aten::copy_']} copies, {shares['aten::sort']} the sort" in PAGE


def test_the_table_of_a_cpu_without() -> None:
    for name, side in sides("capfilt-vnni").items():
        cells = [f"{side['images_per_s']:.2f}", f"{side['cpu_s_an_image']:.2f}"]
        cells += [f"{side['to transformers float32']:.2f}", f"{side['share_of_limit']:.2f}"]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE


def test_the_plan_follows_from_the_rate() -> None:
    log = (ROOT / "benchmarks" / "results" / "capfilt-h200-again.txt").read_text()
    turns = [float(line.split()[-2]) for line in log.splitlines() if line.startswith("capfilt bfloat16")]
    rate = round(min(turns))
    assert f"bfloat16 {' and '.join(f'{turn:.0f}' for turn in turns)} images/s" in PAGE
    assert f"turns, {rate} images a second" in PAGE
    for images in (100_000_000, 5_000_000_000):
        assert f" images | {images / rate / 3600:,.0f} | " in PAGE


def test_the_pipelines_figures() -> None:
    told = json.loads((ROOT / "benchmarks" / "results" / "pipeline.json").read_text())
    end = told["end"]
    rate, engine = f"{end['bootstrap_images_s']:.0f}", f"{end['engine_images_s']:.0f}"
    assert f"{rate} images a second, {end['share_of_engine']:.2f} of the engine's {engine}" in PAGE
    assert f"report are {100 * end['share_of_books']:.1f} % of the work" in PAGE
    assert f"up after {end['start_s']['until Ray is up']:.1f} s" in PAGE
    assert f"done after {end['start_s']['until the first part is done']:.1f} s" in PAGE
    for name in ("rows", "workers", "captions"):
        assert f"| {name} | {' | '.join(f'{run[name]:,}' for run in told[name])} |" in PAGE
        for key, label in (("steady_images_s", "after the first part"), ("images_s", "of the whole run")):
            assert f"| images/s {label} | {' | '.join(f'{run[key]:,.0f}' for run in told[name])} |" in PAGE
