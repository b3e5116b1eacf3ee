from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from scanner.doctor.finding import Notes, Status
from scanner.doctor.homeserver import Homeserver, examine
from tests.doctor.found import named, not_ok
from tests.fake_homeserver import FakeHomeserver, Heard, Step, head
from tests.real_clamd import free_port

MIB = 2**20
TOKEN = "syt_secret"
VERSIONS = {"versions": ["v1.11"]}
MISSING = {"errcode": "M_MISSING_TOKEN"}
UNRECOGNISED = {"errcode": "M_UNRECOGNIZED"}


def answer(status: str, content: dict[str, Any], **headers: str) -> bytes:
    body = json.dumps(content).encode()
    return head(status, [("Content-Length", str(len(body))), *headers.items()]) + body


def matrix(
    versions: bytes | None = None, anonymous: bytes | None = None, known: bytes | None = None
) -> Callable[[Heard], Iterable[Step]]:
    """A homeserver: its versions, and its media configuration without and with a token."""

    def script(heard: Heard) -> Iterable[Step]:
        if heard.target.endswith("/versions"):
            return [versions or answer("200 OK", VERSIONS, Server="Synapse/1.163.2 (x)", Date=formatdate())]
        if heard.header("authorization") is None:
            return [anonymous or answer("401 Unauthorized", MISSING)]
        return [known or answer("200 OK", {"m.upload.size": 20 * MIB})]

    return script


async def noted(script: Callable[[Heard], Iterable[Step]], token: str | None = TOKEN) -> Notes:
    notes = Notes()
    async with FakeHomeserver() as there:
        there.script = script
        await examine(notes, Homeserver(there.url, 20 * MIB, access_token=token))
    assert TOKEN not in repr(notes)
    return notes


async def test_a_good_one_has_nothing_to_do_about() -> None:
    notes = await noted(matrix())
    assert not_ok(notes) == {}
    assert named(notes, "answers").found.startswith("Synapse/1.163.2, within ")
    assert named(notes, "upload limit").found == "20 MiB, within our 20 MiB (limits.media_size)"


async def test_without_a_token_the_limit_is_skipped_with_how_to_see_it() -> None:
    notes = await noted(matrix(), token=None)
    assert not_ok(notes) == {"upload limit": Status.SKIPPED}
    assert "--access-token-file" in named(notes, "upload limit").advice


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        (answer("404 Not Found", {}), "is no homeserver: answers 404"),
        (answer("200 OK", {"hello": 1}), "is no homeserver: answers 200"),
        (answer("502 Bad Gateway", {}), "answers 502"),
        (answer("301 Moved Permanently", {}, Location="https://matrix.example/x"), "redirects"),
    ],
)
async def test_what_is_no_homeserver_is_a_failure(versions: bytes, said: str) -> None:
    notes = await noted(matrix(versions))
    assert not_ok(notes) == {"answers": Status.FAILED}
    assert named(notes, "answers").found.startswith(said)


async def test_nobody_there_is_a_failure() -> None:
    notes = Notes()
    await examine(notes, Homeserver(f"http://127.0.0.1:{free_port()}", 20 * MIB))
    assert not_ok(notes) == {"answers": Status.FAILED}


@pytest.mark.parametrize(
    ("ahead", "status", "said"),
    [
        (30, Status.OK, "within 60 s"),
        (600, Status.WARNING, "10 minutes ahead of ours"),
        (-7300, Status.WARNING, "2 hours behind ours"),
    ],
)
async def test_clocks_are_compared(ahead: float, status: Status, said: str) -> None:
    notes = await noted(matrix(answer("200 OK", VERSIONS, Date=formatdate(time.time() + ahead))))
    assert named(notes, "clock").status is status
    assert said in named(notes, "clock").found


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}])
async def test_a_homeserver_without_a_clock_is_no_fault(headers: dict[str, str]) -> None:
    assert not_ok(await noted(matrix(answer("200 OK", VERSIONS, **headers)))) == {"clock": Status.SKIPPED}


@pytest.mark.parametrize(
    ("anonymous", "status"),
    [
        (answer("404 Not Found", UNRECOGNISED), Status.FAILED),
        (answer("400 Bad Request", UNRECOGNISED), Status.FAILED),
        (answer("200 OK", {}), Status.WARNING),
        (answer("500 Internal Server Error", {}), Status.WARNING),
    ],
)
async def test_media_must_ask_for_a_token(anonymous: bytes, status: Status) -> None:
    assert not_ok(await noted(matrix(anonymous=anonymous))) == {"authenticated media": status}


@pytest.mark.parametrize(
    ("known", "status"),
    [
        (answer("200 OK", {"m.upload.size": 10 * MIB}), Status.OK),
        (answer("200 OK", {"m.upload.size": 50 * MIB}), Status.WARNING),
        (answer("200 OK", {}), Status.SKIPPED),
        (answer("401 Unauthorized", {"errcode": "M_UNKNOWN_TOKEN"}), Status.FAILED),
        (answer("500 Internal Server Error", {}), Status.FAILED),
    ],
)
async def test_the_upload_limit_is_compared_with_ours(known: bytes, status: Status) -> None:
    assert named(await noted(matrix(known=known)), "upload limit").status is status


async def test_an_old_homeserver_tells_its_limit_at_the_old_place() -> None:
    def script(heard: Heard) -> Iterable[Step]:
        if heard.target == "/_matrix/media/v3/config":
            return [answer("200 OK", {"m.upload.size": 20 * MIB})]
        if heard.target.endswith("/versions"):
            return [answer("200 OK", VERSIONS, Date=formatdate())]
        return [answer("404 Not Found", UNRECOGNISED)]

    assert not_ok(await noted(script)) == {"authenticated media": Status.FAILED}


async def test_a_file_without_certificates_is_a_failure_of_its_own(tmp_path: Path) -> None:
    notes = Notes()
    (tmp_path / "ca.pem").write_text("nothing")
    await examine(notes, Homeserver("https://hs.example", MIB, ca_file=tmp_path / "ca.pem"))
    assert not_ok(notes) == {"certificates": Status.FAILED}
    assert "homeserver.ca_file" in notes.findings[0].found


def test_secrets_have_no_repr() -> None:
    there = Homeserver("http://x", MIB, headers={"X-Key": "hidden"}, access_token="hidden")
    assert "hidden" not in repr(there)
