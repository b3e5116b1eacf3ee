"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fake_homeserver import FakeHomeserver, until
from tests.real_clamd import Clamd
from tests.upstream.rig import Rig

# A shell lets what it starts in its background ignore Ctrl-C, and children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: searching them each time took a third of `make check`."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture
def freshly_started() -> Iterator[None]:
    """A look for garbage does not go through all that the tests have loaded, as in a service."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def clamd() -> Iterator[Clamd]:
    """A clamd for all tests that leave it as it is."""
    yield from _running()


@pytest.fixture
def private_clamd() -> Iterator[Clamd]:
    """A clamd that the test may stop, pause or give other signatures."""
    yield from _running()


def _running() -> Iterator[Clamd]:
    with tempfile.TemporaryDirectory(prefix="clamd-") as directory:
        clamd = Clamd(Path(directory))
        clamd.start()
        try:
            yield clamd
        finally:
            clamd.stop()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeHomeserver() as homeserver, AsyncExitStack() as stack:
        rig = Rig(homeserver, stack)
        yield rig
        await until(lambda: rig.budget.reserved == 0)
