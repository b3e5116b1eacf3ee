from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner import admission
from scanner.media import BodyWriter
from scanner.web import wire
from scanner.web.routes import API
from tests.fake_homeserver import PNG, serving, until
from tests.raw_client import connected, request
from tests.web.service import MIB, Serve

# -- headers on media ----------------------------------------------------------------------------


def headers(content_type: str = "image/png", disposition: str | None = None) -> dict[str, str]:
    writer = BodyWriter()
    body = writer.seal(content_type, disposition)
    answer = wire.media(body)
    answer.release()
    body.release()
    return answer.headers


def test_headers_on_media_are_these() -> None:
    assert headers() == {
        "Content-Type": "image/png",
        "Content-Disposition": "inline",
        "Content-Security-Policy": "sandbox; default-src 'none'; script-src 'none';"
        " plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "private, max-age=3600",
    }


@pytest.mark.parametrize(
    ("declared", "served"),
    [
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/svg+xml", "image/svg+xml"),
        ("text/plain;charset=UTF-8", "text/plain; charset=UTF-8"),
        ('text/plain; charset="utf-8"', "text/plain; charset=utf-8"),
        ("text/plain; format=flowed; charset=utf-8", "text/plain; charset=utf-8"),
        ("audio/ogg; codecs=opus", "audio/ogg"),
        ('video/mp4; codecs="avc1.42E01E, mp4a.40.2"', "video/mp4"),
        ("", "application/octet-stream"),
        ("image", "application/octet-stream"),
        ("image/", "application/octet-stream"),
        ("image/png/x", "application/octet-stream"),
        ("image/png, text/html", "application/octet-stream"),
        ("image/png; charset", "application/octet-stream"),
        ('image/png; charset="utf-8', "application/octet-stream"),
        ("image/png; charset=utf-8\r\nSet-Cookie: a=b", "application/octet-stream"),
        ("image/png\n", "application/octet-stream"),
        ("image/png; charset=\xe9", "application/octet-stream"),
        ("text/html; charset=a; charset=b", "application/octet-stream"),
        ("../../etc/passwd", "application/octet-stream"),
        ("a/" + "b" * 1000, "application/octet-stream"),
    ],
)
def test_a_type_is_served_only_if_it_is_one(declared: str, served: str) -> None:
    assert headers(declared)["Content-Type"] == served


@pytest.mark.parametrize(
    ("declared", "content_type", "served"),
    [
        (None, "image/png", "inline"),
        ("inline", "image/png", "inline"),
        ("INLINE; filename=a.png", "image/png", "inline; filename*=UTF-8''a.png"),
        ("attachment", "image/png", "attachment"),
        ("form-data", "image/png", "attachment"),
        ("", "image/png", "inline"),
        ("@@@", "image/png", "attachment"),
        ("inline; filename", "image/png", "attachment"),
        (None, "text/html", "attachment"),
        ("inline", "image/svg+xml", "attachment"),
        ("inline", "application/pdf", "attachment"),
        ("inline", "nonsense", "attachment"),
        ("inline", "text/plain; charset=utf-8", "inline"),
    ],
)
def test_only_harmless_types_are_shown_inline(declared: str | None, content_type: str, served: str) -> None:
    assert headers(content_type, declared)["Content-Disposition"] == served


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ("filename=a.txt", "a.txt"),
        ('filename="a b;c.txt"', "a b;c.txt"),
        ("filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ("filename*=iso-8859-1''na%EFve.txt", "naïve.txt"),
        ("filename=a.txt; filename*=UTF-8''b.txt", "b.txt"),
        ("filename*0=a; filename*1=b", "ab"),
        ("filename*0*=UTF-8''%C3; filename*1*=%AF", "ï"),
        ("filename*=utf-16''%FF", None),
        ("filename*=bogus''a%20b", None),
        ("filename*=undefined''a%20b", None),
        ("filename*=idna''%FF%FE", None),
        ("filename*0*=undefined''a%20b", None),
        ("filename*0*=punycode''%FF", None),
        ("filename*0*=UTF-8'a", None),
        ("filename*=UTF-8''a%0D%0ASet-Cookie%3A%20b", "aSet-Cookie: b"),
        ("filename*=UTF-8''a%00b", "ab"),
        ("filename*=UTF-8''a%E2%80%AEgpj.exe", "agpj.exe"),
        ('filename="\udcff.txt"', ".txt"),
        ("filename=", None),
        ("filename=a; filename=b", None),
    ],
)
def test_a_file_name_is_encoded_anew(parameters: str, name: str | None) -> None:
    served = headers("image/png", f"attachment; {parameters}")["Content-Disposition"]
    disposition, _, encoded = served.partition("; filename*=UTF-8''")
    assert disposition == "attachment"
    assert (unquote(encoded, errors="strict") or None) == name


def test_a_long_file_name_is_cut_between_characters() -> None:
    served = headers("image/png", "attachment; filename*=UTF-8''" + "%E2%82%AC" * 1000)["Content-Disposition"]
    assert unquote(served.partition("''")[2], errors="strict") == "€" * 85


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_the_homeserver_says_headers_are_well_formed(content_type: str, disposition: str) -> None:
    for declared in (disposition, f"attachment; filename={disposition}", f"inline; filename*={disposition}"):
        served = headers(content_type, declared)
        assert re.fullmatch(r"[\w.+-]+/[\w.+-]+(; charset=[\w.+-]+)?", served["Content-Type"], re.ASCII)
        form = r"(inline|attachment)(; filename\*=UTF-8''[\w.~%-]+)?"
        assert re.fullmatch(form, served["Content-Disposition"], re.ASCII)


# -- sending -------------------------------------------------------------------------------------

BIG = 16 * MIB
DOWNLOAD = request(f"{API}/download/example.org/abc")


async def test_every_byte_arrives(serve: Serve) -> None:
    service = await serve(media_size=BIG, memory=64 * MIB)
    content = bytes(range(251)) * (BIG // 251)
    service.homeserver.script = serving(content)
    assert (await service.ask(DOWNLOAD)).body == content


async def test_a_reader_without_progress_is_cut(serve: Serve) -> None:
    service = await serve(media_size=BIG, memory=64 * MIB, reader_timeout=0.4)
    service.homeserver.script = serving(bytes(BIG))
    async with connected(service.port, receive_buffer=4096) as client:
        await client.send(DOWNLOAD)
        await client.read(1)
        began = time.monotonic()
        await until(lambda: service.idle, 3)
        assert 0.3 < time.monotonic() - began < 1.0


@pytest.mark.slow
async def test_a_slow_reader_with_progress_is_not_cut(serve: Serve) -> None:
    """Even one that never empties what is buffered for it in `reader_timeout`."""
    service = await serve(media_size=BIG, memory=64 * MIB, reader_timeout=0.2)
    service.homeserver.script = serving(bytes(BIG))
    received = 0
    async with connected(service.port) as client:
        await client.send(DOWNLOAD)
        began = time.monotonic()
        while time.monotonic() - began < 1.2:
            received += len(await client.read(256 * 1024))
            await asyncio.sleep(0.05)
        while piece := await client.read(MIB):
            received += len(piece)
            if received > BIG:
                break
    assert received > BIG


@pytest.mark.slow
async def test_a_slow_reader_is_cut_earlier_while_others_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", 0.2)
    service = await serve(media_size=BIG, memory=38 * MIB, queue_wait=5.0, reader_timeout=60)
    service.homeserver.script = serving(bytes(BIG))
    async with connected(service.port, receive_buffer=4096) as slow, connected(service.port) as other:
        await slow.send(DOWNLOAD)
        await slow.read(1)
        await asyncio.sleep(0.3)
        assert service.site.in_flight == 1
        service.homeserver.script = serving(PNG + bytes(2 * MIB))
        reply = await other.ask(request(f"{API}/download/example.org/other"))
        assert reply.status == 200
        assert service.site.in_flight == 0
