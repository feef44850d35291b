"""Help, version, usage errors, and what each kind of ending leaves on the terminal."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capfilt.cli.errors import two_lines
from capfilt.cli.main import call
from capfilt.errors import CapfiltError, DestinationError

SCRIPT = Path(sys.executable).with_name("capfilt")
COMMANDS = [
    "bootstrap",
    "quickstart",
    "pretrain",
    "finetune",
    "rounds",
    "paper",
    "evaluate",
    "report",
    "verify",
    "models",
    "recipes",
    "corpora",
]


def test_without_a_command_it_shows_its_help(capfilt):
    said = capfilt()
    assert said.code == 0
    assert said.err == ""
    assert all(f"  {name} " in said.out for name in COMMANDS)


def test_help_documents_the_exit_codes(capfilt):
    for args in (
        [],
        ["bootstrap"],
        ["quickstart"],
        ["pretrain"],
        ["rounds"],
        ["evaluate"],
        ["report"],
        ["verify"],
        ["models"],
    ):
        told = " ".join(capfilt(*args, "--help").out.split())
        assert all(meaning in told for meaning in ("0 done", "1 unexpected", "2 a mistake", "130 interrupted"))


def test_version(capfilt):
    said = capfilt("--version")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("capfilt 0.")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["bootstrap"], "Missing argument"),
        (["bootstrap", "a", "b", "--unknown"], "No such option"),
        (["bootstrap", "a", "b", "--runner", "slurm"], "slurm"),
        (["bootstrap", "a", "b", "--workers", "0"], "--workers"),
        (["bootstrap", "dest"], "SOURCE"),
        (["wash"], "No such command"),
        (["finetune"], "Missing command"),
        (["finetune", "decoder", "a", "b"], "No such command"),
        (["corpora"], "Missing command"),
        (["pretrain", "only-one"], "Missing argument"),
        (["rounds", "2", "source", "out"], "Missing argument"),
        (["rounds", "0", "source", "human", "out"], "N"),
    ],
)
def test_a_wrong_command_line_takes_two_lines(capfilt, args, told):
    said = capfilt(*args)
    assert said.code == 2
    assert said.out == ""
    what, mend = said.err.splitlines()
    assert what.startswith("error: ")
    assert told in what
    assert "--help" in mend


def test_a_field_taken_for_an_option_is_named(capfilt):
    mend = capfilt("bootstrap", "a", "b", "--thershold", "0.4").err.splitlines()[1]
    assert "--set capfilt.threshold=" in mend
    assert "--set" not in capfilt("verify", "a", "--thershold", "0.4").err


@pytest.mark.parametrize(
    "error",
    [
        CapfiltError("bare"),
        CapfiltError("a schema:\n  one: int\n  two: str", where="some\nfile", mend="Do this.\nThen that."),
        DestinationError("not writable", where="/data", mend="Choose another folder."),
    ],
)
def test_any_error_of_the_tree_takes_two_lines(error):
    what, mend = two_lines(error).splitlines()
    assert what.startswith("error: ")
    assert len(mend) > len("  mend: ")


def test_a_fault_of_ours_shows_its_traceback_and_exits_1(capfilt, monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise RuntimeError("the wheel came off")

    importlib.import_module("capfilt.report.page")  # imported later, it would keep the stand-in
    monkeypatch.setattr("capfilt.report.gather.gather", broken)
    said = capfilt("report", tmp_path)
    assert said.code == 1
    assert "Traceback" in said.err
    assert "the wheel came off" in said.err
    assert "please report it" in said.err.splitlines()[-1]


def test_ctrl_c_exits_130_without_a_traceback(capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("capfilt.report.gather.gather", interrupted)
    assert call(["report", "anywhere"]) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in said.err


def test_the_console_script_says_two_lines_and_exits_2(tmp_path):
    args = [SCRIPT, "bootstrap", tmp_path / "none.parquet", tmp_path / "dest", "--runner", "local"]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / "dest").exists()


def test_a_closed_pipe_is_no_drama():
    first, second = os.pipe()
    os.close(first)
    done = subprocess.run([SCRIPT, "recipes"], stdout=second, stderr=subprocess.PIPE, text=True, check=False)
    os.close(second)
    assert "Traceback" not in done.stderr


def test_a_destination_where_another_run_works_is_waited_for_if_asked(capfilt, tmp_path):
    (tmp_path / "table.csv").write_text("url,text\nhttp://127.0.0.1:1/a.jpg,a cat\n")
    lease = tmp_path / "dest" / ".lease.json"
    lease.parent.mkdir()

    def run(*more):
        held = {"token": "t", "host": "elsewhere", "pid": 1, "until": time.time() + 1.5}
        lease.write_text(json.dumps(held))
        models = ("--set", "capfilt.captioner=null")
        return capfilt("bootstrap", tmp_path / "table.csv", tmp_path / "dest", "--runner", "local", *models, *more)

    refused = run()
    assert refused.code == 2
    assert "elsewhere" in refused.err
    waited = run("--wait", "30")
    assert waited.code == 0, waited.err
    assert (tmp_path / "dest" / "manifest.json").exists()
