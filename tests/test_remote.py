"""The client of the inspection route; the real route answers it in tests/e2e/test_synapse_module.py."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from scanner.crypto.pk import format_secret
from scanner.errors import ScannerError, Unavailable
from scanner.media import Body
from scanner.remote import RemoteScanner
from scanner.verdict import Detection, Outcome, Reason, Verdict
from tests.cli.command import media_scanner, refused
from tests.fake_homeserver import FakeHomeserver, Heard, Script, Step, Then, head, in_turn, saying
from tests.fakes import a_body

SECRET = bytes(range(32))
LETTER = b"a letter"
CLEAN = {"known": True, "deliver": True, "outcome": "clean", "reason": None, "signatures": []}
INFECTED = {**CLEAN, "outcome": "infected", "reason": "malware", "signatures": ["Eicar"]}


def telling(content: object, status: str = "200 OK", **headers: str) -> Script:
    body = json.dumps(content).encode()
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return saying(head(status, [("Content-Length", str(len(body))), *named]), body)


BUSY = telling({"errcode": "M_UNKNOWN", "error": "busy"}, "503 Unavailable", Retry_After="0")


@pytest.fixture
async def there() -> AsyncIterator[FakeHomeserver]:
    async with FakeHomeserver() as scanner:
        yield scanner


async def inspect(there: FakeHomeserver, content: bytes = LETTER, patience: float = 5.0) -> Verdict:
    body: Body = a_body(content)
    try:
        async with RemoteScanner(there.url, SECRET, patience) as remote:
            return await remote.inspect(body)
    finally:
        body.release()


async def test_what_is_known_is_not_sent(there: FakeHomeserver) -> None:
    there.script = telling(INFECTED)
    verdict = await inspect(there)
    assert verdict.outcome is Outcome.INFECTED
    assert verdict.detections == (Detection("Eicar"),)
    (heard,) = there.heard
    assert heard.body == b""
    assert heard.header("authorization") == f"Bearer {format_secret(SECRET)}"


async def test_what_is_not_known_is_sent_whole_and_as_a_file(there: FakeHomeserver) -> None:
    def script(heard: Heard) -> Iterable[Step]:
        return telling(CLEAN if heard.body else {"known": False})(heard)

    there.script = script
    content = bytes(1_000_001)
    assert (await inspect(there, content)).outcome is Outcome.CLEAN
    assert there.heard[-1].body == content
    assert "purpose=file" in there.heard[-1].target


async def test_where_in_an_archive_something_is_is_kept_if_it_is_told(there: FakeHomeserver) -> None:
    there.script = telling(INFECTED | {"found": [{"signature": "Eicar", "path": "a.tar/\x1b[2J\ud800evil"}]})
    assert (await inspect(there)).detections == (Detection("Eicar", "a.tar/\\x1b[2J\\xed\\xa0\\x80evil"),)
    there.script = telling(INFECTED | {"found": ["Eicar"]})
    with pytest.raises(ScannerError):
        await inspect(there)


async def test_a_reason_is_kept(there: FakeHomeserver) -> None:
    there.script = telling({**CLEAN, "outcome": "unscannable", "reason": "limit"})
    (report,) = (await inspect(there)).reports
    assert (report.outcome, report.reason) == (Outcome.UNSCANNABLE, Reason.LIMIT)


async def test_a_busy_scanner_is_asked_again(there: FakeHomeserver) -> None:
    there.script = in_turn(BUSY, BUSY, telling(CLEAN))
    assert (await inspect(there)).outcome is Outcome.CLEAN


async def test_a_scanner_that_stays_busy_cannot_judge(there: FakeHomeserver) -> None:
    there.script = BUSY
    with pytest.raises(Unavailable, match="busy"):
        await inspect(there, patience=-1)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (telling({"errcode": "M_UNKNOWN_TOKEN", "error": "not the secret"}, "401 No"), "not the secret"),
        (telling({"errcode": "M_UNRECOGNIZED", "error": "no such route"}, "404 No"), "no inspection route"),
        (telling([]), "answered 200"),
        (telling({"known": True}), "something else than a decision"),
        (telling({**CLEAN, "outcome": "lovely"}), "something else than a decision"),
        (telling({**CLEAN, "reason": "none"}), "something else than a decision"),
        (saying(head("302 Found", [("Location", "http://a"), ("Content-Length", "0")])), "answered 302"),
        (saying(Then.HANG_UP), "no scanner answers"),
    ],
)
async def test_what_is_no_scanner_ends_the_scan(there: FakeHomeserver, script: Script, problem: str) -> None:
    there.script = script
    with pytest.raises(ScannerError, match=problem):
        await inspect(there)


# -- its options ---------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(format_secret(SECRET))
    return file


def test_nobody_there_is_one_line_and_exit_code_2(secret: Path) -> None:
    url = "http://127.0.0.1:9"
    done = media_scanner("scan", "--remote", url, "--secret-file", secret, secret)
    assert done.returncode == 2
    assert f"no scanner answers at {url}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_secret_nobody_is_asked(secret: Path) -> None:
    said = refused(media_scanner("scan", "--remote", "http://127.0.0.1:9", secret))
    assert "--remote needs --secret-file" in said


def test_the_secret_may_stand_in_the_configuration(secret: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"server: {{inspect_secret_file: {secret}}}")
    done = media_scanner("scan", "--config", config, "--remote", "http://127.0.0.1:9", secret)
    assert "no scanner answers at" in done.stderr


@pytest.mark.parametrize("content", ["", "c2hvcnQ="])
def test_a_malformed_secret_is_named(secret: Path, content: str) -> None:
    secret.write_text(content)
    said = refused(media_scanner("scan", "--remote", "http://127.0.0.1:9", "--secret-file", secret, secret))
    assert said.startswith(f"--secret-file: {secret}: ")


@pytest.mark.parametrize("url", ["127.0.0.1:8081", "ftp://a", "http://a/path"])
def test_a_malformed_url_is_a_usage_error(secret: Path, url: str) -> None:
    arguments: tuple[Any, ...] = ("scan", "--remote", url, "--secret-file", secret, secret)
    assert media_scanner(*arguments).returncode == 2
