"""One Synapse and one scanner in front of it for all tests here; users of its own for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest

from tests.e2e import node
from tests.e2e.bucket import CREDENTIALS, Analyst, moto
from tests.e2e.bucket import bucket as new_bucket
from tests.e2e.product import Product
from tests.e2e.scanner_api import ScannerApi
from tests.e2e.synapse import Synapse, User


@pytest.fixture(scope="session")
def synapse() -> Iterator[Synapse]:
    with Synapse() as running:
        yield running


@pytest.fixture(scope="session")
def product(synapse: Synapse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product(tmp_path_factory.mktemp("product"), synapse.url) as running:
        yield running


@pytest.fixture(scope="session")
def clients() -> None:
    """The client libraries that `node` runs."""
    node.install()


@pytest.fixture
async def scanner(product: Product) -> AsyncIterator[ScannerApi]:
    async with aiohttp.ClientSession(product.url) as session:
        yield ScannerApi(session)


@pytest.fixture
def written(synapse: Synapse, product: Product, scanner: ScannerApi) -> Callable[[], Awaitable[str]]:
    """Everything that the product wrote up to now: up to the line about a request that only this one made."""

    async def output() -> str:
        mark = f"mxc://{synapse.server_name}/mark-{secrets.token_hex(8)}"
        await scanner.scan(mark, None)
        return product.output(until=mark)

    return output


@pytest.fixture
async def alice(synapse: Synapse) -> User:
    """Uploads."""
    return await synapse.register(f"alice-{secrets.token_hex(4)}")


@pytest.fixture
async def bob(synapse: Synapse) -> User:
    """Reads what Alice uploaded."""
    return await synapse.register(f"bob-{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture
async def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Analyst]:
    """An empty bucket for a scanner that is started now, and who reads it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    async with new_bucket(s3_endpoint) as analyst:
        yield analyst
