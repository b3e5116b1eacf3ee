from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from scanner.clamd import control
from scanner.clamd.control import ClamdVersion
from scanner.clamd.protocol import ClamdAddress
from scanner.errors import EngineError
from tests.clamd.fake_clamd import VERSION, FakeClamd, ok
from tests.real_clamd import Clamd


def test_version_has_number_and_date_of_the_signatures() -> None:
    version = ClamdVersion.parse("ClamAV 1.4.6/27800/Wed Nov 18 09:31:00 2026")
    assert version.signature_version == 27800
    assert version.signature_timestamp == time.mktime((2026, 11, 18, 9, 31, 0, 0, 0, -1))


def test_version_pads_the_day_with_a_space() -> None:
    version = ClamdVersion.parse("ClamAV 1.4.6/27800/Sun Nov  1 09:31:00 2026")
    assert version.signature_timestamp == time.mktime((2026, 11, 1, 9, 31, 0, 0, 0, -1))


@pytest.mark.parametrize("text", ["ClamAV 1.4.6", "ClamAV 1.5.0-devel-20260101"])
def test_custom_signatures_alone_have_no_date(text: str) -> None:
    assert ClamdVersion.parse(text) == ClamdVersion(text, None, None)


def test_an_unreadable_date_is_no_date() -> None:
    assert ClamdVersion.parse("ClamAV 1.4.6/27800/invalid timestamp").signature_timestamp is None


@pytest.mark.parametrize(
    "text", ["", "PONG", "COMMAND UNAVAILABLE", "ClamAV", "ClamAV 1/x/y", "ClamAV 1.4/2/\x1b"]
)
def test_other_text_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        ClamdVersion.parse(text)


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_a_clamd_can_be_asked_and_told_to_reload(tmp_path: Path, transport: str) -> None:
    async with FakeClamd(tmp_path, ok) as fake:
        address = fake.unix if transport == "unix" else fake.tcp
        assert (await control.version(address)).text == VERSION.decode()
        await control.reload(address)
        assert fake.commands == ["VERSION", "RELOAD"]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (b"", "error"),
        (b"COMMAND UNAVAILABLE", "error"),
        (b"\xff", "error"),
        (b"x" * 20_000, "eof"),
        (None, "timeout"),
    ],
)
async def test_an_odd_answer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, result: str
) -> None:
    monkeypatch.setattr(control, "TIMEOUT", 0.1)
    async with FakeClamd(tmp_path, ok, version=answer) as fake:
        with pytest.raises(EngineError) as failed:
            await control.version(fake.unix)
    assert failed.value.result == result


async def test_an_end_before_the_answer_is_an_error(tmp_path: Path) -> None:
    """As it stands, pyclamd takes it for an answer."""
    path = tmp_path / "closes.sock"
    async with await asyncio.start_unix_server(lambda _, writer: writer.close(), path):
        with pytest.raises(EngineError) as failed:
            await control.version(ClamdAddress(path=str(path)))
    assert failed.value.result == "eof"


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    for address in (ClamdAddress(path=str(tmp_path / "none")), ClamdAddress(host="127.0.0.1", port=1)):
        with pytest.raises(EngineError) as failed:
            await control.version(address)
        assert failed.value.result == "unavailable"


async def test_a_full_backlog_is_no_absence(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        with pytest.raises(EngineError) as failed:
            await control.version(ClamdAddress(path=path))
    assert failed.value.result == "timeout"


@pytest.mark.real
async def test_the_real_clamd_answers(clamd: Clamd) -> None:
    for address in (ClamdAddress(path=str(clamd.socket)), ClamdAddress(host="127.0.0.1", port=clamd.port)):
        assert (await control.version(address)).text == clamd.command("VERSION")
        await control.reload(address)
