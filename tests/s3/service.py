"""A real S3 service with a disk behind it, on loopback: OpenStack Swift with its s3api.

Also for benchmarks/chaos.py, which loads this file by its path.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

KEY, SECRET = "test:tester", "s3cret-that-must-never-be-written"
DAEMONS = ("account", "container", "object")
RUN = """\
import sys
import swift.common.utils as utils
utils.SWIFT_CONF_FILE = sys.argv[2]
if sys.argv[1] == "ring":
    from swift.cli.ringbuilder import main
    sys.exit(main(["swift-ring-builder", *sys.argv[3:]]))
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(sys.argv[3], sys.argv[1]))
"""
COMMON = "[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {user}\nswift_dir = {root}\n"
STORE = "mount_check = false\ndevices = {root}/devices\n[pipeline:main]\npipeline = {kind}-server\n"
PROXY = """\
[pipeline:main]
pipeline = catch_errors cache s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{nowhere}
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Service:
    """Four daemons over one folder; what they store outlives them."""

    def __init__(self, root: Path) -> None:
        self.root, self.running = root, []
        self.ports = {kind: free_port() for kind in (*DAEMONS, "proxy")}
        self.url = f"http://127.0.0.1:{self.ports['proxy']}"
        (root / "devices" / "d1").mkdir(parents=True)
        (root / "run.py").write_text(RUN)
        suffixes = "swift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        (root / "swift.conf").write_text(f"[swift-hash]\n{suffixes}[storage-policy:0]\nname = only\ndefault = yes\n")
        user = os.environ.get("USER") or "root"
        for kind, port in self.ports.items():
            told = COMMON.format(port=port, user=user, root=root)
            if kind == "proxy":
                told += PROXY.format(nowhere=free_port(), secret=SECRET)
            else:
                told += STORE.format(root=root, kind=kind) + f"[app:{kind}-server]\nuse = egg:swift#{kind}\n"
                builder = str(root / f"{kind}.builder")
                for command in (
                    ["create", "4", "1", "0"],
                    ["add", f"r1z1-127.0.0.1:{port}/d1", "1"],
                    ["rebalance"],
                ):
                    self._call("ring", builder, *command)
            (root / f"{kind}.conf").write_text(told)

    def start(self) -> None:
        for kind in self.ports:
            command = self._command(f"{kind}-server", str(self.root / f"{kind}.conf"))
            self.running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        ends = time.monotonic() + 30
        while True:
            try:
                for port in self.ports.values():
                    socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)

    def kill(self) -> None:
        for daemon in self.running:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
        self.running.clear()

    def pause(self) -> None:
        """Lets nothing be answered until :meth:`go_on`; connections stay open."""
        for daemon in self.running:
            daemon.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        for daemon in self.running:
            daemon.send_signal(signal.SIGCONT)

    def _command(self, *args: str) -> list[str]:
        return [sys.executable, str(self.root / "run.py"), args[0], str(self.root / "swift.conf"), *args[1:]]

    def _call(self, *args: str) -> None:
        subprocess.run(self._command(*args), check=True, capture_output=True)

    def environment(self) -> dict[str, str]:
        """Where clients find the service and its credentials, by the usual chain."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
