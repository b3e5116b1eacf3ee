"""Ceph's S3 server, in memory: an implementation that has nothing in common with moto, and checks signatures.

One monitor, one OSD on memstore and the gateway suffice, without a manager; without authentication between
them the monitor must not ask for encryption (facts/operations.md, section 1).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.request
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.e2e.process import Child, free_ports

_PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
ms bind msgr1 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = memstore
run dir = {directory}
crash dir = {directory}
admin socket =
log file = {directory}/$name.log
mon data = {directory}/mon
osd data = {directory}/osd
rgw data = {directory}/rgw
keyring = {directory}/keyring
rgw frontends = beast endpoint=127.0.0.1:{gateway}
"""


class Radosgw:
    """A running server at `url`, for the length of a `with` block; Debian has it, and it is installed."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        _install()
        with self._stack:
            self._start(Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="radosgw-"))))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def user(self, name: str) -> dict[str, str]:
        """A new one's credentials, as they stand in the environment; its ARN is `arn:aws:iam:::user/NAME`."""
        done = self._run("radosgw-admin", "user", "create", "--uid", name, "--display-name", name)
        [key] = json.loads(done)["keys"]
        return {"AWS_ACCESS_KEY_ID": key["access_key"], "AWS_SECRET_ACCESS_KEY": key["secret_key"]}

    def _start(self, directory: Path) -> None:
        monitor, gateway = free_ports(2)
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        self.url = f"http://127.0.0.1:{gateway}"
        self._config = directory / "ceph.conf"
        self._config.write_text(
            _CONFIGURATION.format(fsid=fsid, monitor=monitor, gateway=gateway, directory=directory)
        )
        for name in ("mon", "osd", "rgw"):
            (directory / name).mkdir()
        keyring, monmap = str(directory / "keyring"), str(directory / "monmap")
        _checked(
            "ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"
        )
        _checked("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{monitor}]", monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._child(directory, "ceph-mon", "-f", "-i", "a")
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._child(directory, "ceph-osd", "-f", "-i", "0")
        self._child(directory, "radosgw", "-f", "-n", "client.rgw").wait_until(self._answers, 60)

    def _child(self, directory: Path, program: str, *arguments: str) -> Child:
        child = Child([program, "-c", str(self._config), *arguments], directory / f"{program}.out")
        child.start()
        self._stack.callback(child.kill)
        return child

    def _run(self, program: str, *arguments: str) -> str:
        return _checked(program, "-c", str(self._config), *arguments)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=10):
                return True
        except OSError:
            return False


def _install() -> None:
    if shutil.which("radosgw") is None:
        _checked("apt-get", "install", "-qq", "--no-install-recommends", *_PACKAGES)


def _checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout
