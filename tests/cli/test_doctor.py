"""``capfilt doctor`` as a user meets it."""

import json
import subprocess
import sys
import time


def test_a_line_for_each_check_and_how_many_failed(capfilt, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = capfilt("doctor")
    assert said.code == 0
    lines = [line for line in said.out.splitlines() if not line.startswith(" ")]
    assert all(line.split()[0] in {"ok", "warn"} for line in lines[:-1])
    assert lines[-1].startswith(f"{len(lines) - 1} checks: 0 failed")


def test_what_fails_makes_it_exit_1_and_quiet_says_nothing_else(capfilt, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = capfilt("doctor", "--set", f"capfilt.filter={tmp_path}", "-q")
    assert said.code == 1
    (line,) = [line for line in said.out.splitlines() if line.startswith("fail")]
    assert f"{tmp_path} has no weights" in line
    assert not any(line.startswith("ok") for line in said.out.splitlines())


def test_json(capfilt, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = json.loads(capfilt("doctor", "--json").out)
    assert {frozenset(check) for check in found} == {frozenset({"name", "status", "found", "mend"})}
    assert {check["status"] for check in found} <= {"ok", "warn", "fail"}


def test_it_is_quick_and_loads_neither_torch_nor_ray():
    probe = (
        "import sys; from capfilt.cli.main import call; call(['doctor', '-q']); "
        "print([m for m in ('torch', 'ray', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - start < 20, "three seconds of them may be a hub that does not answer"
