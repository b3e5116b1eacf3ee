"""A verdict is never an access grant: the homeserver authorises every caller (DESIGN.md, "What flows")."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e import node, samples
from tests.e2e.product import Product
from tests.e2e.scanner_api import Reply, ScannerApi
from tests.e2e.synapse import Synapse, User

pytestmark = [pytest.mark.real, pytest.mark.timeout(180), pytest.mark.usefixtures("clients")]

CALLERS = 20
ROUTES = pytest.mark.parametrize("route", ["scan", "download", "scan_encrypted", "download_encrypted"])
CONTENTS = pytest.mark.parametrize("content", [samples.text, samples.infected_zip])

Call = Callable[[User | None], Awaitable[Reply]]


async def uploaded(
    synapse: Synapse, scanner: ScannerApi, owner: User, route: str, content: Callable[[], bytes]
) -> Call:
    """Asks `route` for new media that `owner` uploaded."""
    if not route.endswith("_encrypted"):
        mxc = await synapse.upload(owner, content(), "text/plain")
        return lambda user: getattr(scanner, route)(mxc, user)
    attachment = await node.encrypt("node", content())
    file = attachment.at(await synapse.upload(owner, attachment.ciphertext))
    return lambda user: getattr(scanner, route)({"file": file}, user)


@ROUTES
@CONTENTS
async def test_a_known_verdict_opens_nothing_to_a_caller_whom_the_homeserver_refuses(
    synapse: Synapse, scanner: ScannerApi, alice: User, bob: User, route: str, content: Callable[[], bytes]
) -> None:
    ask = await uploaded(synapse, scanner, alice, route, content)
    known = await ask(bob)
    assert known.status in (200, 403)

    await synapse.logout(bob)

    assert (await ask(bob)).refusal == (401, "M_UNKNOWN_TOKEN")
    assert (await ask(User("@mallory:example.org", "made-up"))).refusal == (401, "M_UNKNOWN_TOKEN")
    # Without a token only the old, frozen endpoints are asked: they do not know newer media.
    assert (await ask(None)).refusal == (404, "M_NOT_FOUND")
    again = await ask(alice)
    assert (again.status, again.body) == (known.status, known.body)


@ROUTES
async def test_refused_callers_beside_accepted_ones_stay_refused(
    synapse: Synapse, scanner: ScannerApi, alice: User, bob: User, route: str
) -> None:
    """At once, so that they meet in one scan."""
    ask = await uploaded(synapse, scanner, alice, route, samples.text)
    await synapse.logout(bob)

    answers = await asyncio.gather(*(ask(user) for user in (bob, alice, None, bob, alice, None)))

    assert [answer.status for answer in answers] == [401, 200, 404, 401, 200, 404]


async def test_a_token_in_the_query_authenticates_but_the_header_counts_first(
    synapse: Synapse, scanner: ScannerApi, alice: User, bob: User
) -> None:
    mxc = await synapse.upload(alice, samples.text(), "text/plain")
    await synapse.logout(bob)

    assert (await scanner.scan(mxc, None, access_token=alice.token)).status == 200
    assert (await scanner.scan(mxc, alice, access_token=bob.token)).status == 200
    assert (await scanner.scan(mxc, bob, access_token=alice.token)).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_many_callers_at_once_cost_one_scan_and_are_each_authorised(
    synapse: Synapse, product: Product, scanner: ScannerApi, alice: User
) -> None:
    callers = [await synapse.register(f"caller-{secrets.token_hex(4)}") for _ in range(CALLERS)]
    ask = await uploaded(synapse, scanner, alice, "download_encrypted", samples.png)
    scanned, authorised = scans(product), fetches(product)

    answers = await asyncio.gather(*(ask(caller) for caller in callers))

    assert [answer.status for answer in answers] == [200] * CALLERS
    assert len({answer.body for answer in answers}) == 1
    assert scans(product) == scanned + 1
    assert fetches(product) >= authorised + CALLERS


async def test_a_key_that_gives_garbage_makes_nobody_elses_attachment_clean(
    synapse: Synapse, scanner: ScannerApi, alice: User, bob: User
) -> None:
    """The same media, right and wrong keys at once: each verdict belongs to what that key gives."""
    attachment = await node.encrypt("node", samples.infected_zip())
    file = attachment.at(await synapse.upload(alice, attachment.ciphertext))
    other = (await node.encrypt("node", b"")).info["key"]
    wrong, right = {"file": {**file, "key": other}}, {"file": file}

    answers = await asyncio.gather(
        *(scanner.scan_encrypted(body, user) for body in (wrong, right) * 4 for user in (alice, bob))
    )

    assert [answer.content["clean"] for answer in answers] == [True, True, False, False] * 4


def scans(product: Product) -> float:
    """How often the engines have judged something that a client asked for."""
    return sum(product.metric("scans_total", source=source) for source in ("scan", "download"))


def fetches(product: Product) -> float:
    """How often the homeserver has said yes."""
    return product.metric("upstream_requests_total", upstream="homeserver", code="200")
