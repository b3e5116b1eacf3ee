"""The stage of the reverse proxies' tests: Synapse, the product, and each proxy in front of both."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.deploy.proxied import Stored, Watched, stored
from tests.e2e import samples
from tests.e2e.curl import Curl
from tests.e2e.product import Product
from tests.e2e.reverse_proxy import PROXIES, ReverseProxy
from tests.e2e.synapse import Synapse, User

TRUSTED = {"server": {"trusted_proxies": ["127.0.0.1/32", "::1/128"]}}


@pytest.fixture(scope="session")
def synapse() -> Iterator[Synapse]:
    """Without authenticated media, so that every way to them that was ever there leads to them."""
    with Synapse({"enable_authenticated_media": False}) as running:
        yield running


@pytest.fixture(scope="session")
def product(synapse: Synapse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product(tmp_path_factory.mktemp("product"), synapse.url, TRUSTED) as running:
        yield running


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """One that others may enter: proxies give up root's rights."""
    with tempfile.TemporaryDirectory(prefix="proxies-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture(scope="session")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="session", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, directory: Path, authority: Authority, product: Product, synapse: Synapse
) -> Iterator[ReverseProxy]:
    place = Path(tempfile.mkdtemp(prefix=request.param, dir=directory))  # may be started again later
    with ReverseProxy(request.param, place, authority, product.url, synapse.url) as running:
        yield running


@pytest.fixture(params=["client-2", "federation-1.1"])
def curl(request: pytest.FixtureRequest, proxy: ReverseProxy) -> Curl:
    """Both ports, and both versions of HTTP."""
    listener, version = request.param.split("-")
    return Curl(proxy, proxy.client if listener == "client" else proxy.federation, version)


@pytest.fixture
def client(proxy: ReverseProxy) -> Curl:
    return Curl(proxy, proxy.client)


@pytest.fixture(scope="session")
def alice(synapse: Synapse) -> User:
    return asyncio.run(synapse.register("alice"))


@pytest.fixture(scope="session")
def infected(synapse: Synapse, alice: User) -> Stored:
    return stored(synapse, alice, samples.eicar(), "text/plain")


@pytest.fixture(scope="session")
def clean(synapse: Synapse, alice: User) -> Stored:
    return stored(synapse, alice, samples.png(), "image/png")


@pytest.fixture
def watched(synapse: Synapse, alice: User) -> Watched:
    return Watched(synapse, alice)
