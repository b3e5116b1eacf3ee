from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from scanner.doctor import http
from scanner.doctor.http import Client, NoAnswer, Reply, session
from scanner.tls import trusting
from tests.doctor.certificates import tls_server
from tests.fake_homeserver import FOREVER, FakeHomeserver, Then, head, saying
from tests.real_clamd import free_port

JSON = b'{"a": 1}'
ANSWER = head(headers=[("Content-Length", str(len(JSON))), ("Connection", "close")]) + JSON


async def asked(url: str, *, ca_file: Path | None = None, proxy: str | None = None) -> Reply:
    trust = None if ca_file is None else trusting(ca_file, "homeserver.ca_file")
    async with session(trust, {"X-Extra": "1"}) as opened:
        return await Client(opened, url, "homeserver.url", proxy).get("/x", "secret")


async def refused(url: str, proxy: str | None = None) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        await asked(url, proxy=proxy)
    assert "secret" not in f"{caught.value.found} {caught.value.advice}"
    return caught.value


async def test_an_answer_is_read_whole_with_its_json() -> None:
    async with FakeHomeserver() as there:
        there.script = saying(ANSWER)
        reply = await asked(there.url)
        [heard] = there.heard
    assert (reply.status, reply.content) == (200, {"a": 1})
    assert abs(reply.asked_at - time.time()) < 5
    assert heard.header("authorization") == "Bearer secret"
    assert heard.header("x-extra") == "1"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"[" * 100_000, b"\xff"])
async def test_what_is_no_json_object_is_an_empty_one(body: bytes) -> None:
    async with FakeHomeserver() as there:
        there.script = saying(head(headers=[("Content-Length", str(len(body)))]), body)
        assert (await asked(there.url)).content == {}


async def test_an_endless_body_is_not_read_to_its_end() -> None:
    async with FakeHomeserver() as there:
        there.script = saying(head(headers=[("Content-Length", str(2**40))]), *[bytes(2**16)] * 64, FOREVER)
        assert (await asked(there.url)).content == {}


async def test_redirects_are_not_followed_and_the_token_stays() -> None:
    async with FakeHomeserver() as there:
        there.script = saying(head("302 Found", [("Location", there.url), ("Content-Length", "0")]))
        assert (await asked(there.url)).status == 302
        assert len(there.heard) == 1


async def test_nobody_there_is_told_apart_from_somebody_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = await refused(f"http://127.0.0.1:{free_port()}")
    assert nobody.refused
    assert nobody.found == "cannot be reached: Connection refused"
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        problem = await refused(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert not problem.refused
    assert problem.found.startswith("no answer within")


async def test_an_answer_that_stops_in_its_middle_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.2)
    async with FakeHomeserver() as there:
        there.script = saying(head(headers=[("Content-Length", "10")]), b"12345", FOREVER)
        assert (await refused(there.url)).found.startswith("no answer within")


@pytest.mark.parametrize("step", [Then.HANG_UP, b"220 smtp.example.org ESMTP\r\n"])
async def test_what_speaks_no_http_is_told(step: bytes | Then) -> None:
    async with FakeHomeserver() as there:
        there.script = saying(step)
        assert (await refused(there.url)).found == "breaks off, or speaks no HTTP"


async def test_an_unknown_host_is_told() -> None:
    assert (await refused("http://nowhere.invalid:8008")).found == "there is no host of that name"


async def test_plain_http_behind_an_https_url_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        problem = await refused(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "http or https" in problem.advice


async def test_a_proxy_that_is_away_is_told() -> None:
    problem = await refused("http://hs.example:8008", proxy=f"http://127.0.0.1:{free_port()}")
    assert "homeserver.proxy" in problem.advice


async def test_a_proxy_is_asked_for_the_homeserver() -> None:
    async with FakeHomeserver() as proxy:
        proxy.script = saying(ANSWER)
        assert (await asked("http://hs.example:8008", proxy=proxy.url)).status == 200
        assert proxy.lines == ["GET http://hs.example:8008/x"]


async def test_certificates_are_believed_only_from_the_named_file(tmp_path: Path) -> None:
    async with tls_server(tmp_path, ANSWER) as (port, certificate):
        problem = await refused(f"https://localhost:{port}")
        assert "its certificate is not believed" in problem.found
        assert "homeserver.ca_file" in problem.advice
        assert (await asked(f"https://localhost:{port}", ca_file=certificate)).status == 200


async def test_a_certificate_for_another_name_is_told_as_that(tmp_path: Path) -> None:
    async with tls_server(tmp_path, ANSWER, "hs.example") as (port, certificate):
        with pytest.raises(NoAnswer) as caught:
            await asked(f"https://localhost:{port}", ca_file=certificate)
    assert "for another name" in caught.value.found
    assert "use that name in homeserver.url" in caught.value.advice
