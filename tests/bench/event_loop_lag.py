"""How long the event loop is held while encrypted attachments of 20 MB go through the whole service.

    .venv/bin/python -m tests.bench.event_loop_lag [ROUNDS]

The service runs in this process, with its embedded clamd on the test set; the homeserver and the client
run in processes of their own. A probe asks the loop for a turn all the time: its longest wait for one
is the lag. Beside it stands the longest that the loop's thread computed between two turns: on a machine
with other work the lag is mostly what that work takes. Exits 1 if the lag's median is over 5 ms.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import NamedTuple

import uvloop
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from scanner.app import running
from scanner.cli.serve import tune
from scanner.config import Config
from tests.real_clamd import free_port

SIZE = 20 * 1024 * 1024
KEY, IV = bytes(range(32)), bytes(16)
LIMIT = 0.005


class Lag(NamedTuple):
    """Seconds from one turn to the next, and processor time of the loop's thread in between."""

    waited: float
    computed: float


def ciphertext(number: int) -> bytes:
    """A new attachment of random bytes for every round, so that none is known."""
    content = number.to_bytes(8, "big") + os.urandom(SIZE - 8)
    return Cipher(AES(KEY), CTR(IV)).encryptor().update(content)


def homeserver(bodies: list[bytes], port: Connection) -> None:
    """Hands out `bodies[n]` as the media `n`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            body = bodies[int(name)] if name.isdigit() else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_address[1])
    server.serve_forever()


def client(listen: str, rounds: Connection) -> None:
    """Downloads every attachment that it is told; answers whether it got its ciphertext."""
    while True:
        number, body = rounds.recv()
        url = f"http://{listen}/_matrix/media_proxy/unstable/download_encrypted"
        content = json.dumps({"file": encrypted_file(number, body)}).encode()
        with urllib.request.urlopen(url, content, timeout=60) as response:
            rounds.send(response.read() == body)


def encrypted_file(number: int, body: bytes) -> dict[str, object]:
    """What the event of the attachment holds."""
    return {
        "v": "v2",
        "url": f"mxc://example.org/{number}",
        "key": {
            "alg": "A256CTR",
            "kty": "oct",
            "ext": True,
            "key_ops": ["encrypt", "decrypt"],
            "k": urlsafe_b64encode(KEY).decode().rstrip("="),
        },
        "iv": b64encode(IV).decode().rstrip("="),
        "hashes": {"sha256": b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")},
    }


async def longest_wait(stop: asyncio.Event) -> Lag:
    """The probe."""
    waited, computed = 0.0, 0.0
    before, used = time.perf_counter(), time.thread_time()
    while not stop.is_set():
        await asyncio.sleep(0)
        now, uses = time.perf_counter(), time.thread_time()
        waited, computed = max(waited, now - before), max(computed, uses - used)
        before, used = now, uses
    return Lag(waited, computed)


async def lag_of(rounds: Connection) -> Lag:
    """The longest until the client has answered."""
    stop = asyncio.Event()
    probe = asyncio.create_task(longest_wait(stop))
    while not rounds.poll():  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.01)
    stop.set()
    if not rounds.recv():
        raise SystemExit("the client got other bytes")
    return await probe


async def measure(url: str, listen: str, bodies: list[bytes], rounds: Connection) -> list[Lag]:
    """One for every round."""
    with tempfile.TemporaryDirectory() as state:
        tree = {
            "server": {"listen": listen, "ops_listen": f"127.0.0.1:{free_port()}"},
            "state_dir": state,
            "homeserver": {"url": url},
            "clamav": {"accept_test_signatures": True},
            "log": {"level": "error"},
        }
        async with running(Config.model_validate(tree), "benchmark") as service:
            while not all(clamd.up for clamd in service.clamav.backends):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
            lags = []
            for number, body in enumerate(bodies):
                await asyncio.to_thread(rounds.send, (number, body))
                lags.append(await lag_of(rounds))
            return lags


def main() -> None:
    """Run the rounds."""
    bodies = [ciphertext(number) for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 9)]
    listen = f"127.0.0.1:{free_port()}"
    port, rounds = start(homeserver, bodies), start(client, listen)
    tune()
    lags = uvloop.run(measure(f"http://127.0.0.1:{port.recv()}", listen, bodies, rounds))
    for number, lag in enumerate(lags):
        print(f"round {number}: waited {lag.waited * 1e3:.2f} ms, computed {lag.computed * 1e3:.2f} ms")  # noqa: T201
    median = statistics.median(lag.waited for lag in lags)
    computed = statistics.median(lag.computed for lag in lags)
    print(f"median: waited {median * 1e3:.2f} ms, computed {computed * 1e3:.2f} ms; limit 5 ms")  # noqa: T201
    sys.exit(median > LIMIT)


def start(target: Callable[..., None], argument: object) -> Connection:
    """A process of its own, and our end of a pipe to it."""
    ours, theirs = multiprocessing.Pipe()
    multiprocessing.get_context("fork").Process(target=target, args=(argument, theirs), daemon=True).start()
    return ours


if __name__ == "__main__":
    main()
