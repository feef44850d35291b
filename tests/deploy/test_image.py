"""The image's files: linted, pinned to what is installed here, and with nothing in the build but what is copied."""

import fnmatch
import re
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def test_hadolint_has_nothing_to_say(deploy, tool):
    done = subprocess.run([tool("hadolint"), str(deploy / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_hadolint_would_say_something(deploy, tool, tmp_path):
    worse = tmp_path / "Dockerfile"
    worse.write_text((deploy / "Dockerfile").read_text().replace("ARG PYTHON=3.11-slim-bookworm\n", "FROM debian\n"))
    done = subprocess.run([tool("hadolint"), str(worse)], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "DL3006" in done.stdout


def test_both_targets_run_as_nobody_in_particular_and_say_how_they_are(deploy):
    text = (deploy / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+) AS (cpu|cuda)$", text, re.M) == [("runtime", "cuda"), ("runtime", "cpu")]
    runtime = text.split(" AS runtime\n")[1].split("\nFROM")[0]
    assert "USER 10001:10001" in runtime
    assert "HEALTHCHECK" in runtime
    assert "http://127.0.0.1:8642/healthz" in runtime
    assert not re.search(r"(?i)(secret|password|token)\w*=", text)
    assert all(" -c /tmp/constraints.txt " in line for line in text.splitlines() if "pip install" in line)


def test_capfilt_is_the_wheel_that_was_built_whatever_an_index_has_of_that_name(deploy, tmp_path):
    """The very lines of the build, with a stand-in for pip."""
    (tmp_path / "capfilt-0.1.0-py3-none-any.whl").write_bytes(b"")
    (tmp_path / "pip").write_text("#!/bin/sh\necho pip $*\n")
    (tmp_path / "pip").chmod(0o755)
    lines = re.findall(r"^ +(wheel=.+)$", (deploy / "Dockerfile").read_text(), re.M)
    assert len(lines) == 2
    for line in lines:
        command = ["sh", "-c", line.replace("/wheels", str(tmp_path))]
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        told = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
        assert told[-1] == f"{tmp_path}/capfilt-0.1.0-py3-none-any.whl[service]"
    assert "find-links" not in (deploy / "Dockerfile").read_text()


def test_rays_launcher_finds_what_it_calls_in_a_login_shell(deploy, tmp_path):
    runtime = (deploy / "Dockerfile").read_text().split(" AS runtime\n")[1].split("\nFROM")[0]
    assert "install --yes --no-install-recommends rsync" in runtime
    (line,) = re.findall(r'echo "(.+)" > /etc/profile\.d/capfilt\.sh', runtime)
    (tmp_path / "profile").write_text(line.replace("\\$", "$"))
    command = ["sh", "-c", f'PATH=/usr/bin; . {tmp_path}/profile; echo "$PATH"']
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "/opt/capfilt/bin:/usr/bin\n"


def pins(deploy):
    lines = (deploy / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in found}


def test_every_package_is_pinned_to_one_version_that_is_installed_here(deploy):
    found = pins(deploy)
    for name, pin in found.items():
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), name
        try:
            here = version(name)
        except PackageNotFoundError:
            continue
        assert pin.specifier.contains(here, prereleases=True), f"{name} {here}, pinned {pin.specifier}"


def test_every_dependency_has_a_pin(deploy):
    found, seen, todo = pins(deploy), set(), [("capfilt", "service")]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            wanted = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        for need in wanted:
            if need.marker and not any(need.marker.evaluate({"extra": e}) for e in ("", extra)):
                continue
            known = canonicalize_name(need.name)
            if not re.match(r"capfilt|cuda-|nvidia-|triton", known):
                assert known in found, f"{need.name}, of {name}"
            todo += [(known, e) for e in {"", *need.extras}]
    assert len(seen) > 60


def test_nothing_goes_into_the_build_but_what_is_copied(deploy):
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (deploy / "Dockerfile").read_text(), re.M)
    names = {name for line in copied for name in line.split()}
    rules = [
        line for line in (deploy / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert rules[0] == "*"
    assert names == {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((deploy.parent / name).exists() for name in names)
    shut = [rule for rule in rules[1:] if not rule.startswith("!")]
    for secret in ("capfilt/.env", "models/a.pem", "capfilt/cli/__pycache__"):
        assert any(fnmatch.fnmatch(secret, rule) for rule in shut), secret
