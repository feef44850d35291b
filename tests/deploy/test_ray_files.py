"""The files of Ray's own launcher, held against the schema and the checks that come with Ray."""

import json
import shlex
from importlib.resources import files

import jsonschema
import pytest
import yaml


@pytest.fixture(params=["aws", "machines"])
def cluster(request, deploy):
    return yaml.safe_load((deploy / f"ray/{request.param}.yaml").read_text())


def test_they_are_what_ray_knows(cluster):
    schema = json.loads((files("ray.autoscaler") / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster | {"workers": 3}, schema)


def test_ray_fills_them_up_and_finds_nothing_wrong(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    full = prepare_config(cluster)
    validate_config(full)
    kinds = full["available_node_types"]
    assert full["head_node_type"] in kinds
    assert sum(kind.get("min_workers", 0) for kind in kinds.values()) <= full["max_workers"]


def test_its_commands_are_rays(cluster):
    from ray.scripts.scripts import cli

    for line in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]:
        words = shlex.split(line)
        assert words[0] == "ray"
        cli.commands[words[1]].make_context(words[1], words[2:])


def test_every_machine_may_reach_the_store_and_the_page_says_what_to_put_in(deploy):
    kinds = yaml.safe_load((deploy / "ray/aws.yaml").read_text())["available_node_types"]
    assert {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in kinds.values()} == {"ROLE"}
    page = (deploy / "ray.md").read_text()
    assert "in place of ROLE" in " ".join(page.split())
    (command,) = (line for line in page.splitlines() if line.startswith("$ ray exec"))
    assert "--address auto" in command


def test_where_there_are_gpus_the_head_has_no_work(deploy):
    cluster = yaml.safe_load((deploy / "ray/aws.yaml").read_text())
    kinds = cluster["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert [name for name, kind in kinds.items() if kind["resources"].get("GPU")] == ["models"]
    assert kinds["models"]["docker"]["worker_image"].endswith("-cuda")
