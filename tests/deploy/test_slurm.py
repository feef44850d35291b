"""The Slurm script: linted, and run on this machine with stand-ins for what Slurm brings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = "slurm/capfilt.sbatch"
SRUN = """\
#!/bin/bash
# One machine stands for all: what is to run there runs here.
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/bash\ntr , '\\n' <<<\"$3\"\n"
HOSTNAME = "#!/bin/bash\necho 127.0.0.1\n"


def test_shellcheck_has_nothing_to_say(deploy, tool):
    done = subprocess.run([tool("shellcheck"), str(deploy / SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def run(deploy, tmp_path, *words, **stubs):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in ({"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME} | stubs).items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    told = {
        "PATH": f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_CPUS_PER_TASK": "2",
        "RAY_agent_register_timeout_ms": "100000",
    }
    command = ["bash", str(deploy / SCRIPT), *words]
    return subprocess.run(
        command, cwd=tmp_path, env=os.environ | told, capture_output=True, text=True, check=False, timeout=250
    )


def test_without_a_command_it_says_what_it_wants(deploy, tmp_path):
    done = run(deploy, tmp_path)
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize(
    ("own", "all_", "address"),
    [
        ("127.0.1.1", "10.0.0.5 172.17.0.1", "10.0.0.5"),
        ("fe80::1 10.0.0.7", "fe80::1 10.0.0.7", "10.0.0.7"),
        ("127.0.0.1", "", "127.0.0.1"),
    ],
)
def test_other_nodes_find_the_first_and_each_has_its_cores(deploy, tmp_path, own, all_, address):
    said = tmp_path / "said"
    done = run(
        deploy,
        tmp_path,
        "doctor",
        hostname=f"#!/bin/bash\n[[ $1 == --ip-address ]] && echo {own} || echo {all_}\n",
        # Healthy is what was started.
        ray=f'#!/bin/bash\necho "$SRUN_CPUS_PER_TASK $*" >> {said}\n[[ $1 == start ]] || grep -q " start " {said}\n',
        python="#!/bin/bash\necho token\n",
        capfilt=f'#!/bin/bash\necho "capfilt $* $RAY_ADDRESS" >> {said}\n',
    )
    assert done.returncode == 0, done.stderr
    port = 20000 + os.getpid() % 10000
    told = said.read_text().splitlines()
    (started,) = [line for line in told if " start " in line]
    assert started.startswith("2 start ")
    assert f"--num-cpus=2 --head --node-ip-address={address} --port={port} " in started
    assert f"2 health-check --address {address}:{port}" in told
    assert f"capfilt doctor {address}:{port}" in told


@pytest.mark.ray
@pytest.mark.slow
def test_it_starts_ray_runs_the_command_there_and_ends_all(deploy, tmp_path):
    source = deploy.parent / "pipelines/sample/images"
    done = run(deploy, tmp_path, "bootstrap", str(source), str(tmp_path / "clean"), "--set", "plan.part_rows=100")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "clean/manifest.json").exists()
    assert "Ray runtime started" in done.stdout
    port = 20000 + os.getpid() % 10000
    ray = Path(sys.executable).with_name("ray")
    asked = subprocess.run([ray, "health-check", "--address", f"127.0.0.1:{port}"], capture_output=True, check=False)
    assert asked.returncode, "nothing of it is left"
