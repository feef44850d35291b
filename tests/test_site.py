"""The site builds strictly, without a network, and holds what its sources say."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import capfilt
from capfilt.stages.config import CapFiltConfig

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_on_it_and_leads_to_files_that_are_there(site: Path) -> None:
    pages = {file.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for file in (ROOT / "docs").rglob("*.md")}
    assert pages <= {file.relative_to(site).as_posix() for file in site.rglob("*.html")}
    for file in site.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#?]+)', file.read_text(encoding="utf-8")):
            if file.name != "404.html" and not re.match(r"[a-z]+:", target):
                assert (file.parent / target).exists(), (file.name, target)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img)[^>]+src="https?:', text), file.name
        assert not re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="https?:', text), file.name


def test_the_references_hold_every_field_and_name(site: Path) -> None:
    recipes = (site / "reference" / "recipes.html").read_text(encoding="utf-8")
    for field in fields(CapFiltConfig):
        assert f"<code>{field.name}</code>" in recipes
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in capfilt.__all__:
        assert f">{name}<" in python or f".{name}" in python, name
    assert "&gt;&gt;&gt;" in python
    assert "<blockquote>" not in python, "an example of a docstring without its fence"
