"""`media-scanner serve`: run the service until it is told to stop."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from scanner.app import Service, running
from scanner.cli.version import product_version
from scanner.config import Config

_PR_SET_DUMPABLE = 4
_SWITCH_INTERVAL = 0.001
_WAIT_FOR_SIGNATURES = 60.0
_TEST_BANNER = """\
**********************************************************************
**  TEST SIGNATURES: this scanner knows EICAR and little else.      **
**  It is for trying only. It does NOT protect anybody.             **
**  Install real signatures (freshclam) and start it again.         **
**********************************************************************"""

_REFUSING_BANNER = """\
**********************************************************************
**  NO SIGNATURES but a test set: every file is refused with 503.   **
**  Install real signatures (freshclam); they are taken up then.    **
**********************************************************************"""


def serve(
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file (YAML).")] = None,
) -> None:
    """Serve the scanner API until SIGTERM or Ctrl-C."""
    loaded = Config.load(config)
    harden()
    tune()
    uvloop.run(_serve(loaded))


def harden() -> None:
    """No core dump, no debugger of another process: keys and plaintext are in our memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tune() -> None:
    """Set the interpreter up for a busy event loop."""
    # What a request makes is freed by counting references; looking for cycles as often costs 3 %.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # A thread that inspects an archive in Python gives the loop its turn after this, instead of 5 ms.
    sys.setswitchinterval(_SWITCH_INTERVAL)


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(config, product_version()) as service:
        greeting = asyncio.create_task(_greet(service))
        await stop.wait()
        greeting.cancel()
        service.readiness.stopping = True


async def _greet(service: Service) -> None:
    """Say where we listen at once, and which signatures there are as soon as clamd tells."""
    server = service.config.server
    _say(f"Listening on http://{server.listen} in front of {service.config.homeserver.url}")
    _say(f"Metrics and readiness on http://{server.ops_listen}/metrics and /health/ready")
    if os.geteuid() == 0:
        _say("Running as root: give the service a user of its own in production.")
    end = time.monotonic() + _WAIT_FOR_SIGNATURES
    backends = service.clamav.backends
    while not any(clamd.up for clamd in backends) and time.monotonic() < end:  # noqa: ASYNC110 - a greeting
        await asyncio.sleep(0.1)
    for clamd in backends:
        _say(f"clamd {clamd.name}: {clamd.description}")
    if any(clamd.up and clamd.has_test_signatures() for clamd in backends):
        _say(_TEST_BANNER if service.config.clamav.accept_test_signatures else _REFUSING_BANNER)
    _say(f"Try:  curl http://{server.listen}/_matrix/media_proxy/unstable/public_key")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - for people; the log is on standard output
