"""The notebook runs from top to bottom, and what it shows is what comes out."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from capfilt import catalog

FILE = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "first-look.ipynb"


def texts(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """What each code cell printed or gave, pictures as their sizes."""
    return [
        [
            re.sub(r" 0x[0-9a-f]+", "", out.get("text") or out.get("data", {}).get("text/plain", ""))
            for out in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_runs_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "med-mini/captioner" not in catalog.models():
        pytest.skip("models/med-mini has no weights: make med-mini")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    shown = texts(notebook)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    again = texts(notebook)
    assert [len(outs) for outs in again] == [len(outs) for outs in shown]
    # Precision is the CPU's own, and a few captions with it; titles, rows and sizes of plots are not.
    assert again[0] == shown[0]
    assert [outs for outs in again if "<Figure" in outs[0]] == [outs for outs in shown if "<Figure" in outs[0]]
    first, then = (ast.literal_eval(outs[1][0]) for outs in (shown, again))
    assert then["rows"] == first["rows"]
    assert then["kept"] == pytest.approx(first["kept"], abs=20)


def test_it_is_committed_as_it_ran_and_holds_no_path_of_a_machine() -> None:
    notebook = nbformat.read(FILE, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not re.search(r"/(?:tmp|home|root|Users|mnt)/", FILE.read_text(encoding="utf-8"))
