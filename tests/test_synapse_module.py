"""The module as Synapse calls it, against a scanner of real sockets; with a real Synapse in tests/e2e."""

from __future__ import annotations

import ast
import asyncio
import base64
import hashlib
import json
import logging
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fake_homeserver import FOREVER, FakeHomeserver, Heard, Script, Step, Then, head, in_turn, saying

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Synapse's own
    from synapse.module_api.errors import Codes, ConfigError, SynapseError

    from scanner import synapse_module
    from scanner.synapse_module import MediaScanner, Settings

P = ParamSpec("P")
T = TypeVar("T")

SECRET = base64.b64encode(bytes(range(32))).decode()
LETTER = b"a letter to Bob"
CLEAN = {"known": True, "deliver": True, "outcome": "clean", "reason": None, "signatures": []}
INFECTED = {**CLEAN, "deliver": False, "outcome": "infected", "reason": "malware", "signatures": ["Eicar"]}
LOCAL = SimpleNamespace(server_name=None, file_id="abc", url_cache=False, thumbnail=None)
REMOTE = SimpleNamespace(server_name="other.org", file_id="copy", url_cache=False, thumbnail=None)


class Api:
    """What the module uses of Synapse's ModuleApi."""

    server_name = "example.org"

    def __init__(self) -> None:
        self.callbacks: dict[str, Any] = {}
        self.slept: list[float] = []

    def register_spam_checker_callbacks(self, **callbacks: Any) -> None:
        self.callbacks.update(callbacks)

    async def defer_to_threadpool(
        self, _: object, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        assert threading.current_thread() is threading.main_thread()
        return await asyncio.to_thread(work, *args, **kwargs)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Bench:
    """A module between a file of Synapse's and a scanner that does as its script says."""

    def __init__(self, scanner: FakeHomeserver, directory: Path) -> None:
        self.scanner = scanner
        self.api = Api()
        self.file = directory / "stored"
        self.file.write_bytes(LETTER)
        self.secret = directory / "secret"
        self.secret.write_text(f"{SECRET}\n")

    def config(self, **changes: object) -> dict[str, Any]:
        return {"url": self.scanner.url, "secret_file": str(self.secret), **changes}

    async def check(self, info: object = LOCAL, **changes: object) -> object:
        module = MediaScanner(MediaScanner.parse_config(self.config(**changes)), cast("Any", self.api))
        check = self.api.callbacks["check_media_file_for_spam"]
        assert check == module.check_media_file_for_spam
        return await check(SimpleNamespace(path=str(self.file)), info)

    async def refused(self, **changes: object) -> SynapseError:
        with pytest.raises(SynapseError) as refusal:
            await self.check(**changes)
        assert refusal.value.headers == {"Retry-After": "5"}
        return refusal.value

    def asked(self) -> list[dict[str, list[str]]]:
        return [parse_qs(urlsplit(heard.target).query) for heard in self.scanner.heard]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FakeHomeserver() as scanner:
        yield Bench(scanner, tmp_path)


def telling(content: object, status: str = "200 OK", **headers: str) -> Script:
    body = json.dumps(content).encode()
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return saying(head(status, [("Content-Length", str(len(body))), *named]), body)


def wanting(decision: object) -> Script:
    """A scanner that knows nothing beforehand."""

    def script(heard: Heard) -> Iterable[Step]:
        return telling({"known": False} if not heard.body else decision)(heard)

    return script


BUSY = telling({"errcode": "M_UNKNOWN", "error": "busy"}, "503 Unavailable", Retry_After="5")


# -- decisions -----------------------------------------------------------------------------------


async def test_what_is_known_is_decided_by_its_hash_alone(bench: Bench) -> None:
    bench.scanner.script = telling(CLEAN)
    assert await bench.check() == "NOT_SPAM"
    (heard,) = bench.scanner.heard
    assert heard.body == b""
    assert heard.header("authorization") == f"Bearer {SECRET}"
    assert bench.asked() == [
        {
            "sha256": [hashlib.sha256(LETTER).hexdigest()],
            "size": [str(len(LETTER))],
            "purpose": ["upload"],
            "mxc": ["mxc://example.org/abc"],
        }
    ]


async def test_what_is_not_known_is_sent_whole_on_the_same_connection(bench: Bench) -> None:
    content = os.urandom(3_000_001)
    bench.file.write_bytes(content)
    bench.scanner.script = wanting(CLEAN)
    assert await bench.check() == "NOT_SPAM"
    first, second = bench.scanner.heard
    assert second.body == content
    assert (second.target, second.connection) == (first.target, first.connection)
    assert second.header("transfer-encoding") is None


async def test_what_is_withheld_is_forbidden_and_told_without_secrets(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.scanner.script = telling(INFECTED)
    assert await bench.check() is Codes.FORBIDDEN
    (record,) = caplog.records
    digest = hashlib.sha256(LETTER).hexdigest()
    assert record.levelno == logging.WARNING
    assert record.message == f"Withheld local media abc: infected, malware, Eicar; sha256 {digest}"


async def test_remote_media_have_no_mxc_and_are_uploads_to_synapse_all_the_same(bench: Bench) -> None:
    bench.scanner.script = telling(CLEAN)
    await bench.check(REMOTE)
    (asked,) = bench.asked()
    assert "mxc" not in asked
    assert asked["purpose"] == ["upload"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"thumbnail": object()}, "thumbnail of local media abc"),
        ({"url_cache": True}, "URL preview local media abc"),
        ({"server_name": "other.org"}, "remote media of other.org, file abc"),
    ],
)
async def test_the_log_says_what_was_withheld(
    bench: Bench, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], named: str
) -> None:
    bench.scanner.script = telling(INFECTED)
    await bench.check(SimpleNamespace(**{**vars(LOCAL), **changes}))
    assert caplog.records[0].message.startswith(f"Withheld {named}: ")


# -- the scanner is away -------------------------------------------------------------------------

FAILURES: dict[str, Script] = {
    "refuses the secret": telling({"errcode": "M_UNKNOWN_TOKEN", "error": "no"}, "401 Unauthorized"),
    "has no such route": telling({"errcode": "M_UNRECOGNIZED", "error": "no"}, "404 Not Found"),
    "is another program": saying(head("200 OK", [("Content-Length", "6")]), b"<html>"),
    "decides nothing": telling({"known": True}),
    "decides in another type": telling({"known": True, "deliver": "yes"}),
    "says nothing but JSON": telling([True]),
    "hangs up": saying(Then.HANG_UP),
    "resets": saying(Then.RESET),
    "speaks no HTTP": saying(b"220 smtp.example.org\r\n", Then.HANG_UP),
    "is silent": saying(FOREVER),
    "breaks off": saying(head("200 OK", [("Content-Length", "600")]), b'{"known": true', Then.HANG_UP),
}


@pytest.mark.parametrize("problem", FAILURES)
async def test_without_a_decision_nothing_is_stored_and_the_client_may_try_again(
    bench: Bench, caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    bench.scanner.script = FAILURES[problem]
    refusal = await bench.refused(timeout=0.3)
    assert (refusal.code, refusal.errcode) == (503, Codes.UNKNOWN)
    assert caplog.records[0].message.startswith("Not stored local media abc: the scanner: ")
    assert SECRET not in caplog.text + str(refusal)


@pytest.mark.parametrize("problem", FAILURES)
async def test_if_the_operator_wants_it_media_are_stored_unscanned_and_that_is_said(
    bench: Bench, caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    bench.scanner.script = FAILURES[problem]
    assert await bench.check(when_unavailable="deliver", timeout=0.3) == "NOT_SPAM"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message.startswith("Stored UNSCANNED local media abc: the scanner: ")


async def test_a_decision_counts_even_if_the_operator_would_do_without(bench: Bench) -> None:
    bench.scanner.script = telling(INFECTED)
    assert await bench.check(when_unavailable="deliver") is Codes.FORBIDDEN


async def test_nobody_listens(bench: Bench) -> None:
    await bench.refused(url="http://127.0.0.1:9")


async def test_a_busy_scanner_is_asked_once_more(bench: Bench) -> None:
    bench.scanner.script = in_turn(BUSY, telling(CLEAN))
    assert await bench.check() == "NOT_SPAM"
    assert bench.api.slept == [5.0]


async def test_a_scanner_that_stays_busy_is_not_asked_for_ever(bench: Bench) -> None:
    bench.scanner.script = BUSY
    await bench.refused()
    assert len(bench.scanner.heard) == 2


async def test_where_there_is_no_time_left_it_is_not_asked_again(bench: Bench) -> None:
    bench.scanner.script = BUSY
    await bench.refused(timeout=3)
    assert len(bench.scanner.heard) == 1


async def test_a_scanner_that_takes_nothing_costs_no_more_than_the_timeout(bench: Bench) -> None:
    bench.file.write_bytes(bytes(20_000_000))
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        deaf = asyncio.create_task(asyncio.to_thread(_take_no_bytes, server))
        await bench.refused(url=f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.5)
        await deaf
    assert 0.4 < time.monotonic() - began < 2


def _take_no_bytes(server: socket.socket) -> None:
    """A scanner that wants the bytes, and then does not read them."""
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(head("200 OK", [("Content-Length", "16")]) + b'{"known": false}')
        time.sleep(0.7)


# -- what it costs Synapse -----------------------------------------------------------------------


async def test_no_file_is_in_memory_as_a_whole(bench: Bench) -> None:
    """Asked in a process of its own would be surer; here by the largest piece that goes out."""
    bench.file.write_bytes(bytes(5_000_000))
    with bench.file.open("rb") as file:
        connection = cast("Any", SimpleNamespace(sock=None))
        pieces = list(synapse_module._pieces(file, connection, time.monotonic() + 1))  # noqa: SLF001
    assert max(map(len, pieces)) <= 256 * 1024
    assert sum(map(len, pieces)) == 5_000_000


def test_it_imports_nothing_that_synapse_lacks() -> None:
    """That it works where only Synapse is installed is shown in tests/e2e/test_synapse_module.py."""
    tree = ast.parse(Path(synapse_module.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"synapse", "twisted"}


# -- its configuration ---------------------------------------------------------------------------


async def test_defaults_are_closed(bench: Bench) -> None:
    settings = Settings.parse(bench.config())
    assert (settings.timeout, settings.deliver_unjudged, settings.tls) == (25.0, False, False)
    assert (settings.host, settings.port) == ("127.0.0.1", bench.scanner.port)


async def test_the_secret_is_in_no_representation(bench: Bench) -> None:
    assert SECRET not in repr(Settings.parse(bench.config()))


@pytest.mark.parametrize("text", [SECRET, SECRET.rstrip("="), f"  {SECRET}\n\n"])
async def test_the_secret_file_is_read_as_the_scanner_reads_it(bench: Bench, text: str) -> None:
    bench.secret.write_text(text)
    assert Settings.parse(bench.config()).secret == SECRET


async def test_https_is_spoken_where_a_proxy_does(bench: Bench) -> None:
    settings = Settings.parse(bench.config(url="https://scanner.internal/"))
    assert (settings.host, settings.port, settings.tls) == ("scanner.internal", None, True)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"url": None}, "url"),
        ({"url": 8081}, "url"),
        ({"url": "127.0.0.1:8081"}, "url"),
        ({"url": "ftp://127.0.0.1"}, "url"),
        ({"url": "http://127.0.0.1:x"}, "url"),
        ({"url": "http://127.0.0.1/_media_scanner"}, "url"),
        ({"url": "http://user@127.0.0.1"}, "url"),
        ({"secret_file": None}, "secret_file"),
        ({"secret_file": "/nonexistent/secret"}, "secret_file"),
        ({"secret_file": __file__}, "secret_file"),
        ({"timeout": "25s"}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"when_unavailable": "maybe"}, "when_unavailable"),
        ({"when_unavailable": ["deliver"]}, "when_unavailable"),
        ({"scanner": "x"}, "scanner"),
    ],
)
async def test_what_is_wrong_is_named(bench: Bench, changes: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigError) as problem:
        MediaScanner.parse_config(bench.config(**changes))
    assert problem.value.path == (path,)
    assert problem.value.msg
