"""`media-scanner serve`: run the service until it is told to stop; SIGHUP reloads its configuration."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

import uvloop

from scanner.app import Service, running
from scanner.cli.options import ConfigFile
from scanner.cli.terminal import one_line
from scanner.cli.version import product_version
from scanner.config import Config
from scanner.events import Reloaded, ReloadFailed

_PR_SET_DUMPABLE = 4
_SWITCH_INTERVAL = 0.001
_WAIT_FOR_SIGNATURES = 60.0
_TEST_BANNER = """\
**********************************************************************
**  TEST SIGNATURES: this scanner knows EICAR and little else.      **
**  It is for trying only. It does NOT protect anybody.             **
**  Install real signatures (freshclam); they are taken up then.    **
**********************************************************************"""

_REFUSING_BANNER = """\
**********************************************************************
**  NO SIGNATURES but a test set: every file is refused with 503.   **
**  Install real signatures (freshclam); they are taken up then.    **
**********************************************************************"""

_OBSERVING_BANNER = """\
**********************************************************************
**  OBSERVING: downloads are handed over, malware included.         **
**  What would be withheld is logged and counted, and no more.      **
**  It does NOT protect anybody until policy.mode is enforce.       **
**********************************************************************"""


def serve(
    config: ConfigFile,
) -> None:
    """Serve the scanner API until SIGTERM or Ctrl-C. SIGHUP reloads the configuration."""
    # Until there is something to reload, SIGHUP waits: by default it would end us.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    loaded = Config.load(config)
    harden()
    tune()
    uvloop.run(_serve(loaded, config))


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


async def _serve(config: Config, file: Path | None) -> None:
    stop, reload = asyncio.Event(), asyncio.Event()
    _handle_signals(stop, reload)
    try:
        async with running(config, product_version()) as service:
            tasks = [asyncio.create_task(work) for work in (_greet(service), _reload(service, reload, file))]
            await stop.wait()
            for task in tasks:
                task.cancel()
            service.readiness.stopping = True
    finally:
        _ignore_signals()


def _handle_signals(stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Not by `add_signal_handler`: a loop that is closed has the signals end us, in the middle of our end."""
    terminal = next((fd for fd in range(3) if os.isatty(fd)), None)
    loop = asyncio.get_running_loop()

    def terminate(number: int, _: FrameType | None) -> None:
        """Whoever presses Ctrl-C once more does not want to wait."""
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        loop.call_soon_threadsafe(stop.set)

    def hang_up(*_: object) -> None:
        """A terminal that was closed says so with the signal that daemons take for a reload."""
        closed = terminal is not None and not os.isatty(terminal)
        loop.call_soon_threadsafe((stop if closed else reload).set)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, terminate)
    signal.signal(signal.SIGHUP, hang_up)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _ignore_signals() -> None:
    """All is done; what Python still does until the process is gone must not change its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


async def _reload(service: Service, asked: asyncio.Event, file: Path | None) -> None:
    """One at a time; whoever asks meanwhile is served by one more."""
    while True:
        await asked.wait()
        asked.clear()
        told = await service.reloader.reload(partial(Config.load, file))
        for line in _report(told, observing=service.config.policy.mode == "observe"):
            _say(line)
        if file is None:
            _say("There is no configuration file: only secret files were read again.")


def _report(told: Reloaded | ReloadFailed, *, observing: bool) -> Iterator[str]:
    if isinstance(told, ReloadFailed):
        yield f"Configuration refused, nothing has changed: {one_line(told.problem)}"
        return
    yield f"Configuration reloaded: {', '.join(told.changed) or 'nothing has changed'}"
    yield from (f"Needs a restart: {setting}" for setting in told.pending)
    if observing and "policy.mode" in told.changed:
        yield _OBSERVING_BANNER


async def _greet(service: Service) -> None:
    """Say where we listen at once, and which signatures there are as soon as clamd tells."""
    server = service.config.server
    _say(f"Listening on http://{server.listen} in front of {service.config.homeserver.url}")
    _say(f"Metrics and readiness on http://{server.ops_listen}/metrics and /health/ready")
    if service.config.policy.mode == "observe":
        _say(_OBSERVING_BANNER)
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
    if "homeserver" in await service.readiness.reasons():
        _say(f"The homeserver does not answer: is {service.config.homeserver.url} right, and is it up?")
    _say(f"Try:  curl http://{server.listen}/_matrix/media_proxy/unstable/public_key")


def _say(line: str) -> None:
    """For people, the log is on standard output; if nobody is there any more, the service goes on."""
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
