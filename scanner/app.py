"""The composition root: a configuration in, a running service out. The one file that knows every class.

Resources are entered in the order in which they need each other and left in reverse: the listeners
drain first, the log closes last.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import gaierror
from typing import Any
from urllib.parse import urlsplit

from scanner.admission import Budget, Slots
from scanner.canary import Canary
from scanner.clamd.backend import Clamd, ClamdBackend
from scanner.clamd.home import CLAMD_SETTINGS
from scanner.clamd.protocol import ClamdAddress
from scanner.clamd.supervisor import EmbeddedClamd
from scanner.config import Config
from scanner.crypto.pk import ServerKeys
from scanner.engines.archive import Archive
from scanner.engines.clamav import ClamAV
from scanner.engines.mime import Mime
from scanner.errors import ConfigError
from scanner.event_sinks.log import Log
from scanner.events import BackendChanged, Bus, Event, LibraryWarned, Publish
from scanner.key_files import REQUEST_SECRET, read_or_generate_secret, read_secret
from scanner.metrics import Metrics, Read
from scanner.pipeline import Pipeline
from scanner.ports import VerdictCache
from scanner.readiness import Readiness
from scanner.upstream import Timers, Upstream
from scanner.verdict import IndexSecret, Policy
from scanner.verdict_cache.memory import Memory
from scanner.verdict_cache.sqlite import Sqlite
from scanner.web.content_scanner import ContentScanner
from scanner.web.operations import Operations
from scanner.web.routes import ROUTES, Route, operations_routes, scanner_routes
from scanner.web.server import Site

_EMBEDDED = "embedded"
# Clients of a local clamd see its database here, where Debian has it.
_LOCAL_DATABASE = Path("/var/lib/clamav")
_READER_TIMEOUT = 60.0  # seconds without progress after which a client is cut
# Seconds for requests under way, of the 25 s that a shutdown may take: clamd gets 3 s to end after them.
_DRAIN = {"listen": 20.0, "ops_listen": 1.0}


@dataclass(frozen=True)
class Service:
    """A service that runs, as `cli/serve` needs it."""

    config: Config
    clamav: ClamAV
    cache: VerdictCache
    budget: Budget
    slots: Slots
    readiness: Readiness
    site: Site


@asynccontextmanager
async def running(config: Config, version: str) -> AsyncIterator[Service]:
    """The service, accepting requests inside the block. Raises ConfigError before it accepts any."""
    async with AsyncExitStack() as stack:
        keys, index = _server_keys(config), _index_secret(config)
        backends = [(ClamAV.name, address) for address in config.clamav.addresses]
        metrics = Metrics(version, ROUTES, backends, config.verdict_cache.url)
        log = await stack.enter_async_context(Log(config.log.level, version=version))
        bus = Bus((metrics, log))
        publish = bus.publish
        stack.enter_context(_library_logs(publish))

        embedded = await _embedded_clamd(config, stack, publish)
        clamav = await stack.enter_async_context(_clamav(config, embedded, publish))
        mime = await stack.enter_async_context(_mime(config))
        cache = await _verdict_cache(config, stack, publish)
        budget = Budget(config.limits.memory, config.limits.queue_wait)
        upstream = await stack.enter_async_context(_upstream(config, budget, publish))
        slots = Slots((os.cpu_count() or 1) * len(clamav.backends), config.limits.queue_wait)
        pipeline = Pipeline(
            engines=(clamav, Archive(), mime),
            cache=cache,
            slots=slots,
            index=index,
            identify=mime.identify,
            publish=publish,
            clean_ttl=config.verdict_cache.clean_ttl,
        )

        canary = Canary(clamav.backends, publish)
        bus.add(partial(_wake, canary))
        await _in_background(stack, canary.run())
        readiness = _readiness(config, clamav, canary, upstream)
        api = ContentScanner(
            upstream=upstream, pipeline=pipeline, policy=_policy(config), keys=keys, publish=publish
        )
        operations = Operations(readiness.reasons, metrics.render)
        await _listen(config, stack, publish, "ops_listen", operations_routes(operations))
        site = await _listen(config, stack, publish, "listen", scanner_routes(api, operations))
        service = Service(config, clamav, cache, budget, slots, readiness, site)
        _add_gauges(metrics, service, log)
        yield service


def _server_keys(config: Config) -> ServerKeys:
    current = read_or_generate_secret(
        config.crypto.secret_file, config.state_dir / REQUEST_SECRET, "crypto.secret_file"
    )
    retired = [
        read_secret(path, "crypto.retired_secret_files") for path in config.crypto.retired_secret_files
    ]
    return ServerKeys(current, retired)


def _index_secret(config: Config) -> IndexSecret:
    return IndexSecret(
        read_or_generate_secret(
            config.crypto.index_secret_file, config.state_dir / "index-secret", "crypto.index_secret_file"
        )
    )


async def _embedded_clamd(config: Config, stack: AsyncExitStack, publish: Publish) -> EmbeddedClamd | None:
    if _EMBEDDED not in config.clamav.addresses:
        return None
    return await stack.enter_async_context(EmbeddedClamd(publish))


def _clamav(config: Config, embedded: EmbeddedClamd | None, publish: Publish) -> ClamAV:
    return ClamAV(
        [_clamd(address, embedded) for address in config.clamav.addresses],
        publish=publish,
        scan_timeout=config.clamav.scan_timeout,
        signature_poll=config.clamav.signature_poll,
        accept_test_signatures=config.clamav.accept_test_signatures,
    )


def _clamd(address: str, embedded: EmbeddedClamd | None) -> Clamd:
    if address == _EMBEDDED and embedded is not None:
        return Clamd(
            ClamdAddress.parse(f"unix:{embedded.socket}"),
            name=_EMBEDDED,
            settings=CLAMD_SETTINGS,
            database=lambda: embedded.database,
            reload_seen=embedded.last_reload,
            test_signatures=lambda: embedded.test_signatures,
        )
    parsed = ClamdAddress.parse(address)
    visible = _LOCAL_DATABASE if parsed.local and _LOCAL_DATABASE.is_dir() else None
    return Clamd(parsed, database=lambda: visible)


def _mime(config: Config) -> Mime:
    allowed, blocked = config.policy.allowed_types, config.policy.blocked_types
    return Mime(
        None if allowed is None else frozenset(allowed), None if blocked is None else frozenset(blocked)
    )


async def _verdict_cache(config: Config, stack: AsyncExitStack, publish: Publish) -> VerdictCache:
    memory = Memory()
    if config.verdict_cache.url == Memory.name:
        return memory
    return await stack.enter_async_context(Sqlite(config.state_dir / "verdicts.sqlite", publish, memory))


def _upstream(config: Config, budget: Budget, publish: Publish) -> Upstream:
    homeserver = config.homeserver
    return Upstream(
        homeserver.url,
        budget=budget,
        media_size=config.limits.media_size,
        timers=Timers(homeserver.first_byte_timeout, homeserver.idle_timeout, homeserver.total_timeout),
        redirect_hosts=frozenset(homeserver.redirect_hosts),
        publish=publish,
    )


def _policy(config: Config) -> Policy:
    policy = config.policy
    return Policy(
        deliver_encrypted_archives=policy.encrypted_archives == "deliver",
        deliver_encrypted_documents=policy.encrypted_documents == "deliver",
        deliver_unscannable=policy.unscannable == "deliver",
    )


def _readiness(config: Config, clamav: ClamAV, canary: Canary, upstream: Upstream) -> Readiness:
    return Readiness(
        backends=clamav.backends,
        canary_healthy=lambda: canary.healthy,
        homeserver_reachable=upstream.reachable,
        max_signature_age=config.clamav.max_signature_age,
        accept_test_signatures=config.clamav.accept_test_signatures,
    )


def _wake(canary: Canary, event: Event) -> None:
    if isinstance(event, BackendChanged) and event.state in ("up", "version"):
        canary.wake()


class _LibraryLog(logging.Handler):
    """What libraries log becomes an event, without the arguments: a token could be among them."""

    def __init__(self, publish: Publish) -> None:
        super().__init__(logging.WARNING)
        self._publish = publish

    def emit(self, record: logging.LogRecord) -> None:
        self._publish(LibraryWarned(record.name, str(record.msg).partition("\n")[0]))


@contextmanager
def _library_logs(publish: Publish) -> Iterator[None]:
    handler = _LibraryLog(publish)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


async def _in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    group = asyncio.TaskGroup()
    await group.__aenter__()
    stack.push_async_callback(group.__aexit__, None, None, None)  # what ends us leaves as itself, in no group
    stack.callback(group.create_task(work).cancel)


async def _listen(
    config: Config, stack: AsyncExitStack, publish: Publish, key: str, routes: Sequence[Route]
) -> Site:
    address: str = getattr(config.server, key)
    parts = urlsplit(f"//{address}")
    site = Site(
        routes,
        publish=publish,
        request_timeout=config.server.request_timeout,
        reader_timeout=_READER_TIMEOUT,
        trusted_proxies=config.server.trusted_proxies,
    )
    stack.push_async_callback(site.drain, _DRAIN[key])
    try:
        await site.listen(parts.hostname or "", parts.port or 0)
    except OSError as error:
        problem = error.strerror if isinstance(error, gaierror) else os.strerror(error.errno or 0)
        raise ConfigError(f"server.{key}: cannot listen on {address}: {problem}") from None
    return site


def _add_gauges(metrics: Metrics, service: Service, log: Log) -> None:
    budget, slots, clamds, cache = service.budget, service.slots, service.clamav.backends, service.cache

    def each(read: Callable[[ClamdBackend], float | None]) -> Read:
        """One number for each clamd that has one."""
        return lambda: [
            ((ClamAV.name, clamd.name), value) for clamd in clamds if (value := read(clamd)) is not None
        ]

    by_backend = ("engine", "backend")
    metrics.gauge(
        "engine_up", "Whether it answers.", each(lambda clamd: clamd.up and clamd.trusted), by_backend
    )
    metrics.gauge(
        "engine_info",
        "Which clamd it is, with which signatures.",
        lambda: [((ClamAV.name, clamd.name, clamd.version.text), 1.0) for clamd in clamds if clamd.version],
        (*by_backend, "version"),
    )
    metrics.gauge("engine_in_flight", "Scans it has.", each(lambda clamd: clamd.in_flight), by_backend)
    metrics.gauge(
        "engine_signature_version",
        "Number of its daily signatures.",
        each(lambda clamd: clamd.version.signature_version if clamd.version else None),
        by_backend,
    )
    metrics.gauge(
        "engine_signature_timestamp_seconds",
        "When its signatures were made.",
        each(lambda clamd: clamd.version.signature_timestamp if clamd.version else None),
        by_backend,
    )
    metrics.gauge("engine_queue_length", "Samples that wait for a slot.", lambda: [((), slots.waiting)])
    metrics.gauge("scans_in_flight", "Samples that hold a slot.", lambda: [((), slots.in_flight)])
    metrics.gauge("http_requests_in_flight", "Being answered.", lambda: [((), service.site.in_flight)])
    metrics.gauge(
        "verdict_cache_entries", "Remembered.", lambda: [((cache.name,), cache.entries())], ("tier",)
    )
    metrics.gauge("log_lines_dropped", "Log lines that nobody took.", lambda: [((), log.dropped)])
    metrics.gauge("buffer_bytes", "Reserved.", lambda: [(("memfd",), budget.reserved)], ("kind",))
    metrics.gauge("buffer_limit_bytes", "At most.", lambda: [(("memfd",), budget.capacity)], ("kind",))
