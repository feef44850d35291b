"""`capfilt push`, by its command line, against a Hub on loopback that checks digests and keeps what it is given."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import pytest

import capfilt
from capfilt import catalog
from capfilt.errors import DestinationError
from capfilt.push import TOGETHER_BYTES, _groups
from capfilt.push import push as to_hub
from tests.hub import TOKEN, serving


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("push")
    (root / "pictures").mkdir()
    for file in sorted((catalog.sample() / "images").glob("computer-icons-lemon*.png"))[:6]:
        shutil.copy(file, root / "pictures" / file.name)
        (root / "pictures" / file.name).with_suffix(".txt").write_text(f"an icon, {file.stem}")
    settings = ["plan.part_rows=1", "capfilt.captioner=null", "capfilt.threshold=0"]
    recipe = capfilt.load_recipe(None, settings, source=str(root / "pictures"))
    capfilt.bootstrap(str(root / "pictures"), str(root / "clean"), recipe=recipe, run=capfilt.RunConfig(runner="local"))
    return root / "clean"


@pytest.fixture
def dest(made, tmp_path):
    return shutil.copytree(made, tmp_path / "clean")


@pytest.fixture
def push(tmp_path):
    def run(hub_url, *args, token=TOKEN):
        env = {
            **os.environ,
            "HF_ENDPOINT": hub_url,
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path),
        }
        command = [sys.executable, "-c", "from capfilt.cli.main import run; run()", "push", *map(str, args)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert token not in done.stdout + done.stderr
        assert "verysecret" not in done.stdout + done.stderr
        return done

    return run


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_all_of_it_arrives_private_with_the_manifest_last_and_nothing_twice(dest, push):
    with serving() as (hub, url):
        done = push(url, dest, "ada/clean", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        there = {path: content for path, (content, _) in hub.files["ada/clean"].items()}
        assert there == contents(dest)
        assert hub.private["ada/clean"] is told["private"] is True
        assert told["files"] == told["sent"] == len(there)
        assert "manifest.json" in hub.commits[-1]
        assert not any("manifest.json" in paths for paths in hub.commits[:-1])
        commits = len(hub.commits)
        again = json.loads(push(url, dest, "ada/clean", "--json").stdout)
        assert (again["sent"], len(hub.commits)) == (0, commits)


def test_stopped_half_way_it_goes_on(dest, push, monkeypatch):
    with serving() as (hub, url):
        hub.fail_commits_after = 1
        done = push(url, dest, "ada/clean")
        assert done.returncode == 2
        assert done.stderr.count("error: ada/clean: the Hub said 403: ") == 1, done.stderr
        assert "Traceback" not in done.stderr
        before = {path for path, _ in hub.files["ada/clean"].items()}
        assert before
        assert "manifest.json" not in before
        hub.fail_commits_after = None
        told = json.loads(push(url, dest, "ada/clean", "--json").stdout)
        assert told["sent"] == told["files"] - len(before)
        assert {path: content for path, (content, _) in hub.files["ada/clean"].items()} == contents(dest)


def test_what_an_earlier_push_had_more_is_taken_away_and_what_is_not_ours_stays(dest, push):
    with serving() as (hub, url):
        hub.files["ada/clean"] = {"shards/00099.tar": (b"old", False), ".gitattributes": (b"mine", False)}
        hub.private["ada/clean"] = True
        done = push(url, dest, "ada/clean")
        assert "1 old ones removed" in done.stdout
        assert "shards/00099.tar" not in hub.files["ada/clean"]
        assert hub.files["ada/clean"][".gitattributes"] == (b"mine", False)


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # the client's own
def test_made_anew_and_cut_off_no_manifest_vouches_for_what_is_not_there(dest, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with serving() as (hub, url):
        before = {path: (data, path.endswith((".tar", ".parquet"))) for path, data in contents(dest).items()}
        hub.files["ada/clean"], hub.private["ada/clean"] = before, True
        books = json.loads((dest / "manifest.json").read_bytes())
        for shard in books["shards"]:
            file = dest / shard["name"]
            file.write_bytes(file.read_bytes() + b"\0" * 512)
            shard |= {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
        (dest / "manifest.json").write_text(json.dumps(books))
        hub.fail_commits_after = 1
        with pytest.raises(DestinationError, match="over quota"):
            to_hub(str(dest), "ada/clean", endpoint=url)
        there = hub.files["ada/clean"]
        assert all(there[shard["name"]][0] == (dest / shard["name"]).read_bytes() for shard in books["shards"])
        assert "manifest.json" not in there
        hub.fail_commits_after = None
        assert to_hub(str(dest), "ada/clean", endpoint=url).sent == 1
        assert {path: content for path, (content, _) in there.items()} == contents(dest)


def test_a_commit_is_bounded_by_files_and_by_bytes():
    names = [f"shards/{n:05}.tar" for n in range(40)]
    assert [len(group) for group in _groups(names, {})] == [32, 8]
    sizes = dict.fromkeys(names[:5], TOGETHER_BYTES // 2) | {names[5]: 2 * TOGETHER_BYTES}
    assert [len(group) for group in _groups(names[:7], sizes)] == [2, 2, 1, 1, 1]


def test_public_only_when_asked(dest, push):
    with serving() as (hub, url):
        hub.files["ada/open"], hub.private["ada/open"] = {}, False
        done = push(url, dest, "ada/open")
        assert done.returncode == 2
        assert "this repository is public" in done.stderr
        assert hub.files["ada/open"] == {}
        assert push(url, dest, "ada/open", "--public").returncode == 0
        assert "manifest.json" in hub.files["ada/open"]


def test_mistakes_take_two_lines(dest, push, tmp_path):
    with serving() as (hub, url):
        wrong = push(url, dest, "ada/clean", token="hf_" + "x" * 34)
        assert wrong.returncode == 2
        assert "hf auth login" in wrong.stderr
        unfinished = push(url, tmp_path, "ada/clean")
        assert "no manifest.json there" in unfinished.stderr
        shard = next((dest / "shards").iterdir())
        shard.write_bytes(shard.read_bytes()[:-1] + b"!")
        damaged = push(url, dest, "ada/clean")
        assert f"shards/{shard.name} is not as the manifest says" in damaged.stderr
        assert hub.commits == []
    nobody = push(url, dest, "ada/clean")
    assert nobody.returncode == 2
    assert len(nobody.stderr.strip().splitlines()) == 2, nobody.stderr
