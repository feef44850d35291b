"""compose.yaml: held against the Compose specification's schema, and its commands against the command line."""

import json
import subprocess
from importlib.resources import files

import jsonschema
import pytest
import yaml


@pytest.fixture(scope="module")
def compose(deploy):
    return yaml.safe_load((deploy / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def schema():
    folder = files("check_jsonschema") / "builtin_schemas" / "vendor"
    return json.loads((folder / "compose-spec.json").read_text())


def test_it_is_what_the_specification_allows(compose, schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    assert [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(compose)] == []
    compose = json.loads(json.dumps(compose))
    compose["services"]["service"]["port"] = 8642  # for ports
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(compose))


def test_its_commands_are_understood(compose, understood):
    services = compose["services"]
    given = understood(["capfilt", *services["service"]["command"]])
    assert (str(given["runner"]), given["host"], given["tokens"]) == ("local", "0.0.0.0", "/run/secrets/tokens")
    assert 'exec capfilt bootstrap "$$@"' in services["bootstrap"]["entrypoint"][2]
    for name in ("head", "worker"):
        words = [*services[name]["entrypoint"], *services[name]["command"]]
        assert words.pop(0) == "ray"
        _ray(words)
    _ray(services["head"]["healthcheck"]["test"][2:])


def _ray(words):
    from ray.scripts.scripts import cli

    command = cli.commands[words[0]]
    command.make_context(words[0], words[1:])


def test_nothing_runs_as_root_or_has_a_secret_in_it_and_only_the_service_has_a_port(compose, deploy):
    text = (deploy / "compose.yaml").read_text()
    for line in (deploy / "compose.env.example").read_text().splitlines():
        if not line.startswith("#"):
            name, _, value = line.partition("=")
            assert value == ""
            assert f"${{{name}:?" in text
    assert {name for name, service in compose["services"].items() if "ports" in service} == {"service"}
    assert compose["services"]["service"]["ports"] == ["127.0.0.1:8642:8642"]
    for name, service in compose["services"].items():
        assert "privileged" not in service
        if name != "store":
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]


def test_yaml_is_tidy(deploy, tool):
    rules = (
        "{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: {max-spaces-inside: 1}, "
        "indentation: {indent-sequences: whatever}}}"
    )
    done = subprocess.run(
        [tool("yamllint"), "-s", "-d", rules, str(deploy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
