"""Stores to work on: each implementation in its turn."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from scanner.ports import Store
from scanner.stores.local import Local
from scanner.stores.s3 import S3, Bucket


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """An S3 server."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
async def any_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    """An empty one."""
    if request.param == "local":
        yield Local(tmp_path / "any-store")
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "analyst")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    url, bucket = request.getfixturevalue("endpoint"), f"b{uuid.uuid4().hex}"
    async with get_session().create_client("s3", endpoint_url=url, region_name="us-east-1") as client:
        await client.create_bucket(Bucket=bucket)
    async with S3(Bucket(bucket, "site/", url)) as store:
        yield store
