"""Help: grouped, with examples that the parser takes, quick; completion; what misspelt names are answered with."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from capfilt.cli.examples import EXAMPLES
from capfilt.cli.main import app
from capfilt.recipe import Recipe, load_config
from capfilt.rounds.config import RoundsConfig
from capfilt.train.config import TrainConfig

SCRIPT = Path(sys.executable).with_name("capfilt")
ROOT = typer.main.get_command(app)


def leaves(group, before=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*before, name))
        else:
            yield (*before, name), command


LEAVES = dict(leaves(ROOT))
NO_JSON = {"schema", "serve", "recipes show", "corpora build", "corpora train", "models average", "models import"}
NO_JSON |= {"models export", "tokens new", "tokens revoke"}


def test_commands_stand_in_groups(capfilt):
    told = capfilt("--help").out
    headings = re.findall(r"^([A-Z].*):$", told, re.M)
    assert headings == ["Options", "Start here", "Data sets", "Models", "Service", "What comes along"]
    data = told.partition("Data sets:")[2].partition("\n\n")[0]
    assert re.findall(r"^  (\w+)", data, re.M) == ["bootstrap", "verify", "report", "refilter", "dedup", "push"]


@pytest.mark.parametrize("args", [[], ["models"], ["jobs"], ["tokens"], ["recipes"], ["corpora"], ["finetune"]])
def test_no_short_help_is_cut(capfilt, args):
    assert [line for line in capfilt(*args, "--help").out.splitlines() if re.match(r"  \w.*\.\.\.$", line)] == []


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_command_explains_itself(capfilt, path):
    told = capfilt(*path, "--help").out
    assert "Exit codes: 0 done" in told
    for example in EXAMPLES.get(" ".join(path), ()):
        assert f"    {example}\n" in told


def test_each_command_of_weight_has_an_example():
    without = {name for path in LEAVES if (name := " ".join(path)) not in EXAMPLES and path[0] not in EXAMPLES}
    assert without == {"jobs watch", "jobs cancel", "jobs retry", "tokens list", "tokens revoke"}


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_the_parser_takes_each_example(line):
    words = line.partition(" > ")[0].replace("'", "").split()[1:]
    command, name = ROOT, []
    while words and (inner := getattr(command, "commands", {}).get(words[0])):
        command, name = inner, [*name, words.pop(0)]
    command.make_context(" ".join(name), words)


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines if " --set " in line])
def test_the_settings_of_each_example_are_those_of_its_recipe(line):
    words = line.split()[1:]
    name = words[0]
    if name == "finetune":
        assert f"init={'next-model/model'}" in words, "else it would start from random weights"
        kind, recipe = TrainConfig, f"finetune-{words[1]}"
    elif name == "rounds":
        assert "start.model=next-model/model" in words, "round 1 would have nothing to begin with"
        kind, recipe = RoundsConfig, "rounds"
    else:
        kind, recipe = (TrainConfig, "pretrain") if name == "pretrain" else (Recipe, "bootstrap")
    needed = {Recipe: ("source.path=in",), RoundsConfig: ("human=[in]", "bootstrap.source.path=in")}
    given = needed.get(kind, ())
    sets = tuple(words[at + 1] for at, word in enumerate(words) if word == "--set")
    assert load_config(kind, recipe, (*given, *sets))


def test_json_everywhere_but_where_there_is_no_result():
    without = {" ".join(path) for path, command in LEAVES.items() if "--json" not in options(command)}
    assert without == NO_JSON


def options(command):
    return {name for param in command.params for name in param.opts}


def test_help_is_quick():
    took = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run([SCRIPT, "--help"], capture_output=True, check=True)
        took.append(time.monotonic() - start)
    assert min(took) < 2.0, "0.3 s where nothing else runs"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("boo", ["bootstrap"]),
        ("models sh", ["show"]),
        ("bootstrap --con", ["--continue-with-changes"]),
        ("bootstrap a b --runner l", ["local"]),
        ("bootstrap a b --set capfilt.thr", ["capfilt.threshold="]),
        ("pretrain a b --set optim.warmup_s", ["optim.warmup_steps="]),
        ("serve --set limits.que", ["limits.queue="]),
        ("recipes show quick", ["quickstart", "quickstart-pretrain"]),
        ("evaluate med-mini/f", ["med-mini/filter"]),
    ],
)
def test_a_shell_completes(typed, completed):
    words = f"capfilt {typed}"
    asked = {"_CAPFILT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run([SCRIPT], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed


def test_the_script_of_completion_is_one_that_bash_reads():
    # It is for the shell that calls, and that is found among the parents of the process: so a real one calls.
    asked = f"{SCRIPT} --show-completion; exit $?"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)
    assert "complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["bootstap"], "bootstrap"),
        (["models", "sho", "x"], "show"),
        (["bootstrap", "a", "b", "--runer", "local"], "--runner"),
        (["bootstrap", "a", "b", "--runner", "loca"], "local"),
        (["evaluate", "med-mini/filter", "x", "--measure", "Filterin"], "filtering"),
        (["bootstrap", "a", "b", "--set", "capfit.threshold=0.5"], "capfilt"),
        (["bootstrap", "a", "b", "--set", "capfilt.treshold=0.5"], "capfilt.threshold"),
        (["bootstrap", "a", "b", "--set", "source.kind=tabel"], "table"),
        (["bootstrap", "pictures", "b", "--retry", "unreachble"], "unreachable"),
        (["recipes", "show", "bootstrp"], "bootstrap"),
        (["models", "show", "med-mini/captoner"], "med-mini/captioner"),
        (["inspect", "pictres"], "pictures"),
        (["inspect", "table.csv", "--set", "source.caption_column=titel"], "title"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(capfilt, tmp_path, monkeypatch, args, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"")
    (tmp_path / "table.csv").write_text("url,title\nhttp://localhost/a.jpg,a cat\n")
    said = capfilt(*args)
    assert said.code == 2
    assert said.err.splitlines()[1].startswith(f"  mend: Did you mean {meant}? ")
    assert said.err.count("Did you mean") == 1


def test_what_is_like_nothing_is_answered_with_no_guess(capfilt):
    assert "Did you mean" not in capfilt("zzzzzz").err
    assert "Did you mean" not in capfilt("bootstrap", "a", "b", "--set", "capfilt.zzzz=1").err


def test_the_models_and_recipes_as_json(capfilt):
    for args in (["models"], ["models", "list"], ["recipes"], ["models", "show", "med-mini/filter"]):
        said = capfilt(*args, "--json")
        assert said.code == 0
        assert said.out.lstrip()[0] in "[{"
