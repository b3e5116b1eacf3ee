"""A service of docker-compose.yml as a plain process, confined as Docker would confine it.

It gets the image's command, environment, user, health check and our files, and the service's volumes, tmpfs,
groups and limits. It runs in namespaces of its own, as process 1 unless it has an `init`, on this machine's
root file system, read-only. What it does not get is an image: no RUN line is executed.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import yaml

from tests.deploy.dockerfile import CHECKOUT, stages

COMPOSE = CHECKOUT / "docker-compose.yml"
ENVIRONMENT = Path(sys.prefix)

# Arguments: an empty directory for the root file system, and the script that furnishes it; then what to run.
_ENTER = """
set -eu
top=$1 furnish=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" overlay "$top/root"
cd "$top/root"
eval "$furnish"
mount -t proc proc proc
mount --rbind /dev dev
mount -o remount,ro .
exec chroot . "$@"
"""


class Container:
    """A service, running inside a `with` block.

    `volumes` says where its named volumes lie, `environ` is what compose would substitute; its output goes
    to `log`.
    """

    def __init__(
        self, name: str, directory: Path, volumes: Mapping[str, Path], environ: Mapping[str, str]
    ) -> None:
        self.service: Mapping[str, Any] = compose(environ)["services"][name]
        self.stage = stages()[self.service["build"]["target"]]
        self.log = directory / f"{name}.log"
        self._volumes = volumes
        self._root = directory / f"{name}-root"

    def __enter__(self) -> Self:
        self._root.mkdir()
        command = [
            *self.stage.command("ENTRYPOINT"),
            *self.service.get("command", self.stage.command("CMD")),
        ]
        with self.log.open("wb") as log:
            self._outer = subprocess.Popen(
                [*self._namespaces(), *self._confined(command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        while Path(f"/proc/{self.pid}/comm").read_text().strip() != command[0]:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._outer.kill()  # and with it its child
        self._outer.wait()

    @property
    def environment(self) -> dict[str, str]:
        """Of the process, with nothing of ours."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, **self.stage.environment, **self.service.get("environment", {})}

    @property
    def pid(self) -> int:
        """Its process, as seen from outside: process 1 of the container, unless it has an init."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        while not children.read_text():
            assert self._outer.poll() is None, self.log.read_text()
            time.sleep(0.01)
        return int(children.read_text())

    def healthy(self) -> bool:
        """Whether its health check succeeds now."""
        check = self.service.get("healthcheck", {}).get("test", ["CMD", *self.stage.healthcheck])
        command = check[1:] if check[0] == "CMD" else ["sh", "-c", *check[1:]]
        return self.run(*command).returncode == 0

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec` runs it."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--wd"]
        return subprocess.run(
            [*enter, *self._confined(command)], capture_output=True, text=True, timeout=30, check=False
        )

    def stop(self) -> int:
        """Its exit status after the stop signal; that of SIGKILL after its grace."""
        [name] = self.stage.all("STOPSIGNAL")
        os.kill(self.pid, signal.Signals[name])
        with suppress(subprocess.TimeoutExpired):
            return self._outer.wait(float(self.service.get("stop_grace_period", "10s").removesuffix("s")))
        return -signal.SIGKILL

    def _namespaces(self) -> list[str]:
        alone = ["--net"] if self.service.get("network_mode") == "none" else []
        first = [] if self.service.get("init") else ["--pid"]
        unshare = ["unshare", "--mount", "--ipc", *first, *alone, "--fork", "--kill-child"]
        enter = ["sh", "-c", _ENTER, "sh", str(self._root), "\n".join(self._furniture())]
        return ["setpriv", "--pdeathsig=KILL", *unshare, *enter]

    def _furniture(self) -> list[str]:
        """Lines of shell that put everything in its place below the current directory."""
        lines = [_bind(CHECKOUT, str(CHECKOUT), read_only=True), _bind(ENVIRONMENT, "/opt/media-scanner")]
        for source, target in self.stage.copies():
            lines.append(f"mkdir -p .{Path(target).parent} && cp {CHECKOUT / source} .{target}")
        for volume in self.service.get("volumes", []):
            source = volume["source"]
            path = self._volumes[source] if volume["type"] == "volume" else CHECKOUT / source
            lines.append(_bind(path, volume["target"], read_only=volume.get("read_only", False)))
        for mount in self.service.get("tmpfs", []):
            target, _, options = mount.partition(":")
            lines.append(f"mount -t tmpfs -o {options} tmpfs .{target}")
        return lines

    def _confined(self, command: Sequence[str]) -> list[str]:
        user, group = self.stage.user
        groups = ",".join(map(str, [group, *self.service.get("group_add", [])]))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        ulimits = self.service["ulimits"]
        limits = [f"--core={ulimits['core']}", f"--nofile={min(ulimits['nofile'], most)}"]
        assert self.service["cap_drop"] == ["ALL"]
        assert self.service["security_opt"] == ["no-new-privileges:true"]
        # That it dies with `unshare` has to be said again: a change of user forgets it.
        nothing = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--pdeathsig=KILL"]
        become = ["setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={groups}", *nothing]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return ["prlimit", *limits, *become, "env", "-i", *variables, *command]


def compose(environ: Mapping[str, str]) -> dict[str, Any]:
    """docker-compose.yml with its variables filled in; raises KeyError for one that must be given."""

    def filled(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        return environ.get(name, default) if operator == ":-" else environ[name]

    text = re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", filled, COMPOSE.read_text())
    return dict(yaml.safe_load(text))


def _bind(source: Path, target: str, *, read_only: bool = False) -> str:
    place = "mkdir -p" if source.is_dir() else "touch"
    parent = Path(target).parent
    mode = f" && mount -o remount,bind,ro .{target}" if read_only else ""
    return f"mkdir -p .{parent} && {place} .{target} && mount --bind {source} .{target}{mode}"
