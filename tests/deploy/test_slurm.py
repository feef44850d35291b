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


def run(deploy, tmp_path, *words):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME}.items():
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
