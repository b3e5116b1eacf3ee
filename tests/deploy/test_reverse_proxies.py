"""deploy/reverse-proxy: each proxy with the file that is shipped, before a real Synapse and the product."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from scanner.web.reception import SILENCE
from tests.certificates import Authority
from tests.deploy.conftest import TRUSTED
from tests.deploy.detours import ways_around
from tests.deploy.proxied import Stored, Watched, upload
from tests.e2e import samples
from tests.e2e.curl import Curl
from tests.e2e.process import free_ports
from tests.e2e.product import Product
from tests.e2e.reverse_proxy import EXAMPLES, HOST, PROXIES, ReverseProxy
from tests.e2e.synapse import Synapse, User

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose rights HAProxy and nginx give up"),
]

LIMIT = 20 * 1024 * 1024
FORBIDDEN = (403, "M_FORBIDDEN")
NO_ROUTE = (404, "M_UNRECOGNIZED")
API = "/_matrix/media_proxy/unstable"

# -- the files -----------------------------------------------------------------------------------


def test_its_own_checker_has_nothing_to_say_against_the_file(proxy: ReverseProxy) -> None:
    checked = proxy.check()
    assert checked.returncode == 0, checked.stdout
    # Caddy warns of what we told it: no certificates of its own.
    complaint = "not formatted" if proxy.name == "caddy" else "warn"
    assert complaint not in checked.stdout.lower(), checked.stdout


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile", "haproxy.cfg"])
def test_no_proxy_gives_up_before_the_product(name: str) -> None:
    """Caddy waits for ever where nothing is said."""
    directives = (
        "timeout client|timeout server|client_body_timeout|send_timeout|proxy_send_timeout|proxy_read_timeout"
        "|response_header_timeout"
    )
    text = (EXAMPLES / name).read_text()
    timeouts = re.findall(rf"^\s*(?:{directives}) +(\d+)s", text, re.MULTILINE)
    assert timeouts
    assert min(map(int, timeouts)) > SILENCE


def test_clients_are_told_where_homeserver_and_scanner_are(client: Curl) -> None:
    homeserver = client.ask("/.well-known/matrix/client")
    scanner = client.ask("/.well-known/element/element.json")

    assert homeserver.content == {"m.homeserver": {"base_url": f"https://{HOST}"}}
    assert scanner.content == {"content_scanner_url": f"https://{HOST}"}


# -- what goes where -----------------------------------------------------------------------------


def test_media_go_through_the_product(curl: Curl, alice: User, infected: Stored, clean: Stored) -> None:
    refused = curl.ask_all(infected.paths, alice.headers)
    delivered = curl.ask_all(clean.paths, alice.headers)

    assert {answer.refusal for answer in refused} == {FORBIDDEN}
    assert {(answer.status, answer.body, answer.version) for answer in delivered} == {
        (200, clean.content, curl.version)
    }


def test_thumbnails_previews_and_limits_go_through_the_product(
    curl: Curl, alice: User, clean: Stored, watched: Watched
) -> None:
    prefixes = ("client/v1/media", "media/v3", "media/r0", "media/v1")
    thumbnails = [f"/_matrix/{each}/thumbnail/{clean.media}?width=32&height=32" for each in prefixes]
    limits = [f"/_matrix/{each}/config" for each in prefixes]
    previews = [f"/_matrix/{each}/preview_url?url=http%3A%2F%2F127.0.0.1%2F" for each in prefixes]

    assert {answer.status for answer in curl.ask_all(thumbnails, watched.headers)} == {200}
    assert {answer.content["m.upload.size"] for answer in curl.ask_all(limits, watched.headers)} == {LIMIT}
    curl.ask_all(previews, watched.headers)
    assert watched.arrived(curl) == []


def test_the_scanner_api_is_the_products(curl: Curl, alice: User, infected: Stored) -> None:
    scan = curl.ask(f"{API}/scan/{infected.media}", alice.headers)
    download = curl.ask(f"{API}/download/{infected.media}", alice.headers)

    assert (scan.status, scan.content["clean"]) == (200, False)
    assert (download.status, download.content["reason"]) == (403, "MCS_MEDIA_NOT_CLEAN")
    assert "public_key" in curl.ask(f"{API}/public_key").content


@pytest.mark.parametrize("version", ["v3", "r0", "v1"])
def test_infected_uploads_get_nowhere(client: Curl, alice: User, synapse: Synapse, version: str) -> None:
    content = samples.infected_zip()

    refused = upload(client, alice, f"/_matrix/media/{version}/upload", content)

    assert refused.refusal == FORBIDDEN
    assert not synapse.stores(content)


def test_clean_uploads_arrive_and_reserved_ones_too(client: Curl, alice: User, synapse: Synapse) -> None:
    content, later = samples.text(), samples.text()

    answer = upload(client, alice, "/_matrix/media/v3/upload?filename=a%20letter.txt", content)
    reserved = client.ask("/_matrix/media/v1/create", alice.headers, 'data = ""').content["content_uri"]
    path = f"/_matrix/media/v3/upload/{reserved.removeprefix('mxc://')}"
    put = upload(client, alice, path, later, 'request = "PUT"')

    assert (answer.status, put.status) == (200, 200)
    assert synapse.stores(content)
    assert synapse.stores(later)


ELSEWHERE = (
    "/_matrix/client/versions?a=1;b=%zz&url=https://x/../media//%6dedia",
    "/_matrix/client/v3/profile/%40alice%3Asynapse.test%3A8448",
    "/_matrix/client/v3/profile/@alice:synapse.test:8448",
    "/_matrix/client/v3/rooms/%21a%3Ab/state/m.room.name/",
    "/_matrix/client/v3/rooms/!a:b/event/$c%2Fd%2Be..f",
    "/_matrix/client/r0/directory/room/%23caf%C3%A9%20%25%5B%7Bmedia%7D%5D%2Fmedia:x",
    "/_matrix/client/v3/devices/MEDIA",
    "/_matrix/client/unstable/devices/MEDIAMEDIA",
    "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
    "/_matrix/client/v1/rooms/%21a%3Ab/hierarchy?limit=1",
    "/_matrix/federation/v1/version",
    "/_matrix/federation/v1/event/%24a%2Fb~%7E!$&'()*+,;=",
    "/_matrix/federation/v1/state/%21a%3Ab?event_id=%24c%2F%2b%2B",
    "/_matrix/key/v2/server",
    "/_matrix/key/v2/query/example.org",
    "/_synapse/client/new_user_consent",
)


def test_everything_else_reaches_synapse_byte_for_byte(curl: Curl, watched: Watched) -> None:
    """Federation signs the bytes of the request target."""
    curl.ask_all(ELSEWHERE, watched.headers)
    assert watched.requests(curl) == list(ELSEWHERE)


PRIVATE = (
    "/_synapse/admin/v1/server_version",
    "/_synapse/admin/v1/media/synapse.test/abc",
    "/_synapse/replication/x",
    "/_synapse/metrics",
    "/_MATRIX/client/versions",
    "/health/ready",
    "/metrics",
    "/",
)


def test_what_is_no_clients_business_is_refused(curl: Curl, watched: Watched) -> None:
    answers = curl.ask_all(PRIVATE, watched.headers)
    assert {answer.refusal for answer in answers} == {NO_ROUTE}
    assert watched.arrived(curl) == []


def test_an_unsigned_request_of_another_homeserver_gets_synapses_refusal_through_the_product(
    proxy: ReverseProxy, infected: Stored, watched: Watched
) -> None:
    curl = Curl(proxy, proxy.federation)
    path = f"/_matrix/federation/v1/media/download/{infected.media.partition('/')[2]}"

    answer = curl.ask(path, {"User-Agent": watched.headers["User-Agent"]})

    assert answer.refusal == (401, "M_UNAUTHORIZED")
    assert watched.arrived(curl) == []


# -- no way around -------------------------------------------------------------------------------


def test_without_a_proxy_the_homeserver_hands_out_what_is_infected(
    synapse: Synapse, infected: Stored, alice: User
) -> None:
    """The control: without this, there would be nothing to go around for."""
    for path in infected.paths:
        asked = urllib.request.Request(synapse.url + path, headers=alice.headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.read() == infected.content


def test_media_cannot_be_had_around_the_product(curl: Curl, watched: Watched, infected: Stored) -> None:
    targets = list(ways_around(infected.media))
    answers = curl.ask_all(targets, watched.headers)

    got = [
        target for target, answer in zip(targets, answers, strict=True) if answer.status < 400 and answer.body
    ]
    assert got == []
    assert not any(infected.content in answer.body for answer in answers)
    assert watched.arrived(curl) == []


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "PROPFIND"])
def test_no_method_leads_around_the_product(
    client: Curl, watched: Watched, infected: Stored, method: str
) -> None:
    targets = [*infected.paths, "/_matrix/media/v3/upload", "/_matrix/%6dedia/v3/upload"]
    option = "head" if method == "HEAD" else f'request = "{method}"'
    client.ask_all(targets, watched.headers, option)
    assert watched.arrived(client) == []


# -- who asks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
def test_the_clients_own_address_arrives_whatever_he_says(
    proxy: ReverseProxy, synapse: Synapse, watched: Watched, alice: User, address: str
) -> None:
    """Straight at Synapse, and through the product, which is believed by Synapse as the proxy is by it."""
    curl = Curl(proxy, proxy.client, address=address)
    lies = {"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    unknown = f"{synapse.server_name}/{secrets.token_hex(8)}"

    curl.ask("/_matrix/client/v3/joined_rooms", {**watched.headers, **lies})
    curl.ask(f"/_matrix/media/v3/download/{unknown}", {**alice.headers, **lies})

    [straight] = watched.arrived(curl)
    [through] = [line for line in synapse.log().splitlines() if unknown in line and "Processed" in line]
    assert f" - {address} - " in straight
    assert f" - {address} - " in through
    assert '"matrix-media-scanner"' in through


def test_tokens_in_queries_are_in_no_log(
    proxy: ReverseProxy, client: Curl, clean: Stored, alice: User
) -> None:
    for path in ("/_matrix/client/v3/joined_rooms", clean.paths[0]):
        assert client.ask(f"{path}?access_token={alice.token}").status == 200
    assert alice.token not in proxy.written()


class Recorder(BaseHTTPRequestHandler):
    """Stands where Synapse stands, and answers with the headers that arrived."""

    def do_GET(self) -> None:
        body = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL at which it answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def recorder() -> Iterator[str]:
    with served(Recorder) as url:
        yield url


@pytest.mark.parametrize("name", PROXIES)
def test_headers_that_arrive_are_the_proxys_where_they_count(
    name: str, directory: Path, authority: Authority, recorder: str
) -> None:
    """And without the product, which is down, nobody gets media."""
    [nobodys] = free_ports(1)
    place = Path(tempfile.mkdtemp(dir=directory))
    with ReverseProxy(name, place, authority, f"http://127.0.0.1:{nobodys}", recorder) as proxy:
        curl = Curl(proxy, proxy.client, "1.1")
        tunnel = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQ"}
        lies = {"X-Forwarded-For": "203.0.113.9, 127.0.0.1", "X-Forwarded-Proto": "http"}
        signature = 'X-Matrix origin="a.test",destination="b.test",key="ed25519:1",sig="x/+="'

        headers = {**tunnel, **lies, "Authorization": signature}
        arrived = json.loads(curl.ask("/_matrix/federation/v1/version", headers).body)
        closed = curl.ask("/_matrix/media/v3/download/a.test/b")

    there = dict(arrived)
    assert [value for header, value in arrived if header == "x-forwarded-for"] == ["127.0.0.2"]
    assert there["x-forwarded-proto"] == "https"
    assert there["authorization"] == signature
    assert there["host"].partition(":")[0] == HOST
    assert not {"upgrade", "accept-encoding"} & there.keys()
    assert closed.status in (502, 503, 504)


# -- while the product is away -------------------------------------------------------------------

AWAY = {"errcode": "M_NOT_FOUND", "error": "media cannot be had now"}


@pytest.mark.parametrize("name", PROXIES)
def test_a_stop_of_the_product_never_keeps_other_homeservers_from_sending_messages(
    name: str, directory: Path, authority: Authority, synapse: Synapse, tmp_path: Path
) -> None:
    """Synapse takes 5xx for our whole server being down. 401 is its own: nothing is signed here."""
    place = Path(tempfile.mkdtemp(dir=directory))
    media = "/_matrix/federation/v1/media/download/x"
    with (
        Product(tmp_path, synapse.url, TRUSTED) as product,
        ReverseProxy(name, place, authority, product.url, synapse.url) as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        other, client = Curl(proxy, proxy.federation, "1.1"), Curl(proxy, proxy.client)
        refusals = [other.ask(media).refusal]
        stopping = pool.submit(product.stop)
        while not stopping.done():
            refusals.append(other.ask(media).refusal)
        stopping.result()

        stopped = other.ask_all([media, media.upper().replace("/_MATRIX", "/_matrix"), media + "?a=/x"])
        clients = client.ask("/_matrix/client/v1/media/download/a.test/b")
        messages = client.ask("/_matrix/client/versions")

    assert refusals[0] == (401, "M_UNAUTHORIZED")
    assert set(refusals) <= {(401, "M_UNAUTHORIZED"), (404, "M_NOT_FOUND")}
    assert [(answer.status, answer.content) for answer in stopped] == [(404, AWAY)] * 3
    assert clients.status in (502, 503)
    assert clients.content["errcode"] == "M_UNKNOWN"
    assert messages.status == 200


class Failing(Recorder):
    """Stands where the product stands and is alive; of media it says 503, or nothing at all."""

    def do_GET(self) -> None:
        if self.path.endswith("/busy"):
            self.send_error(503)
        elif not self.path.endswith("/silence"):
            super().do_GET()


@pytest.mark.parametrize("name", PROXIES)
def test_a_product_that_breaks_off_is_away_and_what_it_says_itself_goes_through(
    name: str, directory: Path, authority: Authority
) -> None:
    place = Path(tempfile.mkdtemp(dir=directory))
    with served(Failing) as url, ReverseProxy(name, place, authority, url, url) as proxy:
        curl = Curl(proxy, proxy.federation, "1.1")  # over HTTP/2 HAProxy breaks off, too
        silent = curl.ask("/_matrix/federation/v1/media/download/silence")
        clients = curl.ask("/_matrix/client/v1/media/download/a.test/silence")
        busy = curl.ask("/_matrix/federation/v1/media/download/busy")

    assert (silent.status, silent.content) == (404, AWAY)
    assert clients.refusal == (502, "M_UNKNOWN")
    assert busy.status == 503
    assert b"Service Unavailable" in busy.body
