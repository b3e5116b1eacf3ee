"""What is compared: the reference, the product, and the floor, which is clamd without any proxy."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.bench.clamd import Clamd
from tests.bench.http_client import Client
from tests.bench.requests import AUTHORIZATION, Request
from tests.bench.services import CHECKOUT, Service, accepts

REFERENCE, PRODUCT, FLOOR = TARGETS = ("reference", "product", "floor")


class Surroundings(NamedTuple):
    """What every target gets: `folder` for files to keep, `scratch` on tmpfs where there is one."""

    clamd: Clamd
    origin_port: int
    folder: Path
    scratch: Path

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.origin_port}"


class Sender(Protocol):
    """One caller's way to a target."""

    async def send(self, request: Request, *, hashed: bool) -> str | None:
        """What is wrong with the answer, None if nothing is. Raises OSError."""

    def close(self) -> None: ...


class Target(Protocol):
    """`pid` is whose memory and processor time count."""

    name: str

    @property
    def pid(self) -> int | None: ...

    def sender(self) -> Sender: ...

    def start(self) -> None: ...

    def check(self) -> None:
        """Raises where it has ended."""

    def stop(self) -> None: ...


class _HttpSender:
    def __init__(self, port: int) -> None:
        self._client = Client(port)

    async def send(self, request: Request, *, hashed: bool) -> str | None:
        response = await self._client.request(
            request.method(), request.path(), AUTHORIZATION, request.body(), hashed=hashed
        )
        return request.wrong(response)

    def close(self) -> None:
        self._client.close()


class Server(Service):
    """A proxy that listens on `port`."""

    def __init__(
        self, name: str, command: list[str], port: int, log: Path, environment: dict[str, str]
    ) -> None:
        super().__init__(command, accepts(port), log, environment)
        self.name = name
        self._port = port

    def sender(self) -> Sender:
        return _HttpSender(self._port)


class Floor:
    """The plaintext goes straight to clamd, as many files at once as there are processors."""

    name = FLOOR
    pid = None

    def __init__(self, clamd: Clamd, slots: int) -> None:
        self._clamd = clamd
        self._slots = slots

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(self._slots)

    def check(self) -> None:
        self._clamd.check()

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def sender(self) -> Sender:
        return self

    async def send(self, request: Request, *, hashed: bool) -> str | None:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._scan, request)

    def close(self) -> None:
        """All senders are the same."""

    def _scan(self, request: Request) -> str | None:
        reply = self._clamd.scan(request.base.body, request.base.tail(request.variant))
        return (
            None
            if reply.endswith("FOUND" if request.base.infected else "OK")
            else f"wrong verdict for {request.base.name}"
        )


def product(surroundings: Surroundings, port: int) -> Server:
    """As `serve.sh` beside this file runs it; MEDIA_SCANNER__... of the caller's environment go through."""
    folder = surroundings.folder / PRODUCT
    folder.mkdir(exist_ok=True)
    environment = {
        "BENCH_WORK": str(folder),
        "BENCH_PORT": str(port),
        "BENCH_ORIGIN": surroundings.origin,
        "BENCH_CLAMD_SOCKET": str(surroundings.clamd.socket),
    }
    command = [str(CHECKOUT / "tests" / "bench" / "serve.sh")]
    return Server(PRODUCT, command, port, folder / "log", environment)


def reference(surroundings: Surroundings, port: int, python: Path) -> Server:
    """As a careful admin runs it: sample configuration, clamdscan that passes descriptors, files on tmpfs."""
    folder = surroundings.folder / "reference-run"
    folder.mkdir(exist_ok=True)
    script, secret, configuration = folder / "scan.sh", folder / "secret", folder / "config.yaml"
    script.write_text(
        f"#!/bin/sh\nexec clamdscan --config-file={surroundings.clamd.configuration} --fdpass --no-summary"
        ' "$1" >/dev/null\n'
    )
    script.chmod(0o755)
    secret.write_text(b64encode(bytes(range(32))).decode())
    configuration.write_text(f"""\
web: {{host: 127.0.0.1, port: {port}}}
scan: {{script: {script}, temp_directory: {surroundings.scratch}, removal_command: rm}}
result_cache: {{exit_codes_to_ignore: [2], max_size: 2048, ttl: 1d, max_file_size: 100MB}}
download: {{base_homeserver_url: "{surroundings.origin}"}}
crypto: {{request_secret_path: {secret}}}
""")
    command = [str(python), "-m", "matrix_content_scanner.mcs", "-c", str(configuration)]
    return Server(REFERENCE, command, port, folder / "log", {})
