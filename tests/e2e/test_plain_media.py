"""Plain media of a real homeserver, through the running product, judged by a real clamd."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e import samples
from tests.e2e.scanner_api import ScannerApi
from tests.e2e.synapse import Synapse, User

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

LIMIT = 20 * 1024 * 1024

# facts/security.md, section 5.
HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
        "style-src 'unsafe-inline'; object-src 'self';"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, max-age=3600",
    "Access-Control-Allow-Origin": "*",
}


@pytest.mark.parametrize(
    ("sample", "content_type"),
    [(samples.text, "text/plain"), (samples.png, "image/png"), (samples.zeros, "application/x-zeros")],
)
async def test_clean_media_are_called_clean_and_delivered_unchanged(
    synapse: Synapse,
    scanner: ScannerApi,
    alice: User,
    bob: User,
    sample: Callable[[], bytes],
    content_type: str,
) -> None:
    content = sample()
    mxc = await synapse.upload(alice, content, content_type)

    scan = await scanner.scan(mxc, bob)
    download = await scanner.download(mxc, bob)

    assert (scan.status, scan.content["clean"]) == (200, True)
    assert (download.status, download.body) == (200, content)
    assert download.headers["Content-Length"] == str(len(content))
    assert download.headers["Content-Type"].partition(";")[0] == content_type


@pytest.mark.parametrize("sample", [samples.eicar, samples.infected_zip])
async def test_infected_media_are_called_unclean_and_withheld(
    synapse: Synapse, scanner: ScannerApi, alice: User, bob: User, sample: Callable[[], bytes]
) -> None:
    mxc = await synapse.upload(alice, sample(), "text/plain")

    scan = await scanner.scan(mxc, bob)

    assert (scan.status, scan.content["clean"]) == (200, False)
    assert (await scanner.download(mxc, bob)).refusal == (403, "MCS_MEDIA_NOT_CLEAN")


async def test_infected_media_are_withheld_from_a_first_download_too(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    mxc = await synapse.upload(alice, samples.infected_zip(), "application/zip")

    assert (await scanner.download(mxc, alice)).refusal == (403, "MCS_MEDIA_NOT_CLEAN")


async def test_a_thumbnail_is_that_of_the_homeserver(
    synapse: Synapse, scanner: ScannerApi, alice: User, bob: User
) -> None:
    mxc = await synapse.upload(alice, samples.png(), "image/png")

    thumbnail = await scanner.thumbnail(mxc, bob, width="32", height="32", method="crop")

    assert (thumbnail.status, thumbnail.headers["Content-Type"]) == (200, "image/png")
    assert thumbnail.body.startswith(b"\x89PNG\r\n\x1a\n")
    assert thumbnail.body[16:24] == bytes([0, 0, 0, 32, 0, 0, 0, 32])


async def test_media_are_delivered_under_headers_of_our_own(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    picture = await synapse.upload(alice, samples.png(), "image/png", "été.png")
    page = await synapse.upload(alice, b"<p>" + samples.text(), "text/html", "page.html")

    inline = (await scanner.download(picture, alice)).headers
    attached = (await scanner.download(page, alice)).headers

    assert HEADERS.items() <= inline.items()
    assert HEADERS.items() <= attached.items()
    assert inline["Content-Disposition"] == "inline; filename*=UTF-8''%C3%A9t%C3%A9.png"
    assert attached["Content-Disposition"] == "attachment; filename*=UTF-8''page.html"
    assert "Server" not in inline
    assert "ETag" not in inline


async def test_a_download_may_name_the_file(synapse: Synapse, scanner: ScannerApi, alice: User) -> None:
    content = samples.text()
    mxc = await synapse.upload(alice, content, "text/plain", "hers.txt")

    download = await scanner.download(mxc, alice, filename="mine.txt")

    assert (download.status, download.body) == (200, content)
    assert download.headers["Content-Disposition"].endswith("mine.txt")


async def test_media_of_exactly_the_limit_are_delivered(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    content = samples.text().ljust(LIMIT, b".")
    mxc = await synapse.upload(alice, content, "text/plain")

    download = await scanner.download(mxc, alice)

    assert (download.status, len(download.body)) == (200, LIMIT)
    assert download.body == content


async def test_media_one_byte_over_the_limit_are_refused(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    mxc = await synapse.upload(alice, samples.text().ljust(LIMIT + 1, b"."), "text/plain")

    assert (await scanner.download(mxc, alice)).refusal == (413, "MCS_MEDIA_REQUEST_FAILED")
    assert (await scanner.scan(mxc, alice)).refusal == (413, "MCS_MEDIA_REQUEST_FAILED")


async def test_unknown_media_are_not_found(synapse: Synapse, scanner: ScannerApi, alice: User) -> None:
    mxc = f"mxc://{synapse.server_name}/there-is-no-such-media"

    assert (await scanner.scan(mxc, alice)).refusal == (404, "M_NOT_FOUND")
    assert (await scanner.download(mxc, alice)).refusal == (404, "M_NOT_FOUND")
    assert (await scanner.thumbnail(mxc, alice, width="32", height="32")).refusal == (404, "M_NOT_FOUND")


async def test_media_that_are_not_uploaded_yet_can_be_asked_for_later(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    mxc = await synapse.reserve(alice)

    assert (await scanner.scan(mxc, alice, timeout_ms="100")).refusal == (504, "MCS_MEDIA_REQUEST_FAILED")


async def test_each_withheld_media_is_one_alert_in_the_log(
    synapse: Synapse, scanner: ScannerApi, alice: User, written: Callable[[], Awaitable[str]]
) -> None:
    mxc = await synapse.upload(alice, samples.infected_zip(), "application/zip")
    await scanner.download(mxc, alice)

    lines = [json.loads(line) for line in (await written()).splitlines() if mxc in line]
    [alert] = [line for line in lines if line.get("event", {}).get("kind") == "alert"]

    assert alert["event"]["action"] == "media-blocked"
    assert "eicar" in alert["rule"]["name"].lower()
    assert alert["media_scanner"]["mxc"] == mxc
    assert alert["media_scanner"]["verdict"] == "infected"
