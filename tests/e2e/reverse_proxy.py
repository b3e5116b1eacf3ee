"""nginx, Caddy and HAProxy as `deploy/reverse-proxy` has them, as plain processes on loopback.

Of the shipped files only what `_RULES` says is replaced: addresses, ports, the certificate, the log's file.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

from tests.certificates import Authority
from tests.e2e.process import Child, free_ports

EXAMPLES = Path(__file__).parents[2] / "deploy" / "reverse-proxy"
HOST = "matrix.example.org"
PROXIES = ("nginx", "caddy", "haproxy")

_FILES = {"nginx": "nginx.conf", "caddy": "Caddyfile", "haproxy": "haproxy.cfg"}
_EVERYWHERE = {
    "127.0.0.1:8080": "{scanner}",
    "127.0.0.1:8008": "{synapse}",
    "/etc/ssl/private/matrix.example.org.pem": "{certificate}",
}
_RULES: Mapping[str, Mapping[str, str]] = {
    "nginx": {
        "listen 443 ": "listen 127.0.0.1:{client} ",
        "listen [::]:443 ": "listen [::1]:{client} ",
        "listen 8448 ": "listen 127.0.0.1:{federation} ",
        "listen [::]:8448 ": "listen [::1]:{federation} ",
        "/var/log/nginx": "{directory}",
    },
    "caddy": {
        "auto_https off": "auto_https off\n\tdefault_bind 127.0.0.1 ::1",
        ":443": ":{client}",
        ":8448": ":{federation}",
    },
    "haproxy": {
        "bind :443 ": "bind 127.0.0.1:{client} ",
        "bind :::443 ": "bind [::1]:{client} ",
        "bind :8448 ": "bind 127.0.0.1:{federation} ",
        "bind :::8448 ": "bind [::1]:{federation} ",
    },
}
# What Debian's nginx.conf has around the files in conf.d, as far as it matters here.
_AROUND_NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    gzip on;
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/answers;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/nginx.conf;
}}
"""


class ReverseProxy:
    """One of `PROXIES`, for the length of a `with` block; its files lie in `directory`, which must be empty.

    `scanner` and `synapse` are the URLs of the two services. `edits` are further replacements.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        authority: Authority,
        scanner: str,
        synapse: str,
        edits: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.authority = authority
        self.client, self.federation = free_ports(2)
        directory.chmod(0o755)  # they give up root's rights
        self.configuration = directory / _FILES[name]
        text = self._replaced((EXAMPLES / _FILES[name]).read_text(), scanner, synapse)
        for old, new in (edits or {}).items():
            assert old in text
            text = text.replace(old, new)
        self.configuration.write_text(text)
        (directory / "around.conf").write_text(_AROUND_NGINX.format(directory=directory))
        self.process = Child(self._command("run"), directory / "output.log")

    @property
    def url(self) -> str:
        """Where clients ask, by address."""
        return f"https://127.0.0.1:{self.client}"

    @property
    def pids(self) -> list[int]:
        """Itself and its workers."""
        [children] = Path(f"/proc/{self.process.pid}/task").glob(f"{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def check(self) -> subprocess.CompletedProcess[str]:
        """What its own checker of configurations says."""
        return subprocess.run(
            self._command("check"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def written(self) -> str:
        """All its logs."""
        return "".join(file.read_text() for file in self.directory.glob("*.log"))

    def files(self) -> set[str]:
        """What lies on disk for it: below its directory and in open descriptors, deleted or not."""
        below = {str(path) for path in self.directory.rglob("*") if path.is_file()}
        return below | {file for pid in self.pids for file in _open_files(pid)}

    def __enter__(self) -> Self:
        self.process.start()
        try:
            self.process.wait_until(self._listens, 20)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate(10)

    def _replaced(self, text: str, scanner: str, synapse: str) -> str:
        values = {
            "client": self.client,
            "federation": self.federation,
            "directory": self.directory,
            "certificate": self.authority.issue(HOST, "example.org", "127.0.0.1", "::1"),
            "scanner": scanner.removeprefix("http://"),
            "synapse": synapse.removeprefix("http://"),
        }
        rules = {**_EVERYWHERE, **_RULES[self.name]}
        for shipped in rules:
            assert shipped in text, f"{_FILES[self.name]} has no {shipped!r} to replace"
        # In one pass: a port that was put in may begin as one that is to be replaced (44312).
        return re.sub("|".join(map(re.escape, rules)), lambda found: rules[found[0]].format(**values), text)

    def _command(self, purpose: Literal["run", "check"]) -> list[str]:
        if self.name == "nginx":
            words = ["nginx", "-c", f"{self.directory}/around.conf", *(["-t"] if purpose == "check" else [])]
        elif self.name == "caddy":
            subcommand = "validate" if purpose == "check" else "run"
            words = ["caddy", subcommand, "--adapter", "caddyfile", "--config", str(self.configuration)]
        else:
            words = ["haproxy", "-c" if purpose == "check" else "-db", "-f", str(self.configuration)]
        # For Caddy, which keeps files of its own and listens to its administrators.
        own = [f"HOME={self.directory}", f"CADDY_ADMIN=unix/{self.directory}/admin.sock"]
        return ["env", *own, f"PATH={os.environ['PATH']}:/usr/sbin", *words]

    def _listens(self) -> bool:
        for port in (self.client, self.federation):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)):
                    return False
        return True


def _open_files(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = str(descriptor.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if name.startswith("/") and not name.startswith(("/dev/", "/proc/", "/memfd:")):
            yield name
