"""The composition root: a configuration in, a running service out. The one file that knows every class.

Resources are entered in the order in which they need each other and left in reverse: the listeners
drain first, the log closes last.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import gaierror
from typing import Any
from urllib.parse import urlsplit

from scanner.admission import Budget, Slots
from scanner.canary import Canary
from scanner.clamd.backend import Clamd
from scanner.clamd.freshclam import Freshclam, databases
from scanner.clamd.home import DATABASE, EMBEDDED, OWN_DATABASE
from scanner.clamd.neighbour import embedded_beside
from scanner.clamd.protocol import ClamdAddress
from scanner.clamd.sources import Sources
from scanner.clamd.supervisor import EmbeddedClamd
from scanner.config import Config
from scanner.crypto.pk import ServerKeys
from scanner.engines.archive import Archive
from scanner.engines.clamav import ClamAV
from scanner.engines.mime import Mime
from scanner.epoch import Epoch
from scanner.errors import ConfigError
from scanner.event_sinks.log import Log
from scanner.events import BackendChanged, Bus, Event, Publish
from scanner.gauges import add_configuration_gauges, add_gauges
from scanner.key_files import INDEX_SECRET, REQUEST_SECRET, read_or_generate_secret, server_keys
from scanner.library_log import library_log
from scanner.metrics import Metrics
from scanner.pipeline import Pipeline
from scanner.ports import VerdictCache
from scanner.readiness import Readiness
from scanner.reload import Preparation, Reloader
from scanner.tls import trusting
from scanner.upstream import Timers, Upstream
from scanner.upstream_transport import Transport
from scanner.verdict import IndexSecret, Policy
from scanner.verdict_cache.memory import Memory
from scanner.verdict_cache.sqlite import Sqlite
from scanner.web.content_scanner import ContentScanner, Terms
from scanner.web.operations import Operations
from scanner.web.routes import ROUTES, Route, operations_routes, scanner_routes
from scanner.web.server import Site

_READER_TIMEOUT = 60.0  # seconds without progress after which a client is cut
# Seconds for requests under way, of the 25 s that a shutdown may take: clamd gets 3 s to end after them.
_DRAIN = {"listen": 20.0, "ops_listen": 1.0}


@dataclass(frozen=True)
class Service:
    """A service that runs, as `cli/serve` needs it."""

    reloader: Reloader
    clamav: ClamAV
    cache: VerdictCache
    budget: Budget
    slots: Slots
    readiness: Readiness
    site: Site

    @property
    def config(self) -> Config:
        """What is in force."""
        return self.reloader.config


@dataclass(frozen=True)
class Judge:
    """What gives verdicts: the pipeline and what stands behind it, inside `judging`."""

    pipeline: Pipeline
    clamav: ClamAV
    mime: Mime
    canary: Canary
    budget: Budget
    slots: Slots


@asynccontextmanager
async def running(config: Config, version: str) -> AsyncIterator[Service]:
    """The service, accepting requests inside the block. Raises ConfigError before it accepts any."""
    async with AsyncExitStack() as stack:
        keys, index, transport = _server_keys(config), _index_secret(config), _transport(config)
        backends = [(ClamAV.name, address) for address in config.clamav.addresses]
        metrics = Metrics(version, ROUTES, backends, config.verdict_cache.url)
        log = await stack.enter_async_context(Log(config.log.level, version=version))
        bus = Bus((metrics, log))
        publish = bus.publish
        stack.enter_context(library_log(publish))

        embedded = await _embedded_clamd(config, stack, publish)
        freshclam = await _freshclam(config, stack, embedded, publish)
        cache = await _verdict_cache(config, stack, publish)
        own = None if embedded is None else embedded.clamd
        epoch = Epoch(config.state_dir)
        await _in_background(stack, epoch.follow())
        judge = await stack.enter_async_context(
            judging(config, bus, embedded=own, cache=cache, index=index, epoch=lambda: epoch.current)
        )
        upstream = await stack.enter_async_context(_upstream(config, transport, judge.budget, publish))
        readiness = _readiness(config, judge, upstream, freshclam)
        terms = Terms(_policy(config), keys, judge.pipeline)
        api = ContentScanner(upstream=upstream, terms=terms, publish=publish)
        operations = Operations(
            readiness.reasons, metrics.render, lambda: api.terms.policy.mode, readiness.warnings
        )
        own_site = await _listen(config, stack, publish, "ops_listen", operations_routes(operations))
        site = await _listen(config, stack, publish, "listen", scanner_routes(api, operations))
        prepare = partial(_prepare, judge=judge, api=api, log=log, sites=(own_site, site))
        reloader = Reloader(config, prepare=prepare, publish=publish)
        service = Service(reloader, judge.clamav, cache, judge.budget, judge.slots, readiness, site)
        add_gauges(
            metrics,
            clamds=judge.clamav.backends,
            cache=cache,
            budget=judge.budget,
            slots=judge.slots,
            requests=lambda: site.in_flight,
            log_lines_dropped=lambda: log.dropped,
            last_update=lambda: freshclam.last_success if freshclam is not None else None,
        )
        add_configuration_gauges(
            metrics,
            mode=lambda: api.terms.policy.mode,
            last_reload=lambda: (reloader.successful, reloader.succeeded_at),
        )
        yield service


@asynccontextmanager
async def judging(
    config: Config,
    bus: Bus,
    *,
    embedded: Clamd | None,
    cache: VerdictCache,
    index: IndexSecret,
    epoch: Callable[[], int] = lambda: 0,
) -> AsyncIterator[Judge]:
    """Engines, slots, budget and pipeline: the same for whoever brings samples.

    `embedded` is the clamd that the address `embedded` stands for; `epoch` as in ClamAV.
    """
    async with AsyncExitStack() as stack:
        clamav = await stack.enter_async_context(_clamav(config, embedded, bus.publish, epoch))
        mime = await stack.enter_async_context(Mime(config.policy.allowed_types, config.policy.blocked_types))
        slots = Slots((os.cpu_count() or 1) * len(clamav.backends), config.limits.queue_wait)
        pipeline = Pipeline(
            engines=(clamav, Archive(), mime),
            cache=cache,
            slots=slots,
            index=index,
            identify=mime.identify,
            publish=bus.publish,
            clean_ttl=config.verdict_cache.clean_ttl,
        )
        canary = Canary(clamav.backends, bus.publish)
        bus.add(partial(_wake, canary))
        await _in_background(stack, canary.run())
        budget = Budget(config.limits.memory, config.limits.queue_wait)
        yield Judge(pipeline, clamav, mime, canary, budget, slots)


@asynccontextmanager
async def judging_files(config: Config, bus: Bus, note: Callable[[str], None]) -> AsyncIterator[Judge]:
    """As `judging`, for a command beside the service: reads no secret, leaves nothing behind.

    For `embedded` it takes the clamd of the service that runs here, else starts one; `note` is told which.
    """
    async with AsyncExitStack() as stack:
        embedded = await clamd_beside(config, stack, bus.publish, note)
        index = IndexSecret(secrets.token_bytes(32))
        yield await stack.enter_async_context(
            judging(config, bus, embedded=embedded, cache=Memory(), index=index)
        )


def _server_keys(config: Config) -> ServerKeys:
    crypto = config.crypto
    return server_keys(crypto.secret_file, config.state_dir / REQUEST_SECRET, crypto.retired_secret_files)


def _index_secret(config: Config) -> IndexSecret:
    return IndexSecret(
        read_or_generate_secret(
            config.crypto.index_secret_file, config.state_dir / INDEX_SECRET, "crypto.index_secret_file"
        )
    )


async def _embedded_clamd(config: Config, stack: AsyncExitStack, publish: Publish) -> EmbeddedClamd | None:
    if EMBEDDED not in config.clamav.addresses:
        return None
    return await stack.enter_async_context(EmbeddedClamd(publish, databases=_databases(config)))


def _databases(config: Config) -> Sequence[Path]:
    return databases(always=config.clamav.freshclam == "on")


async def _freshclam(
    config: Config, stack: AsyncExitStack, embedded: EmbeddedClamd | None, publish: Publish
) -> Freshclam | None:
    wanted = config.clamav.freshclam
    if embedded is None or wanted == "off":
        return None
    sources = Sources(config.clamav.mirrors, config.clamav.mirror_proxy)
    own = OWN_DATABASE if embedded.lasting else None
    freshclam = Freshclam(publish, sources, home=embedded.home, own=own, always=wanted == "on")
    return await stack.enter_async_context(freshclam)


def _clamav(config: Config, embedded: Clamd | None, publish: Publish, epoch: Callable[[], int]) -> ClamAV:
    return ClamAV(
        [_clamd(address, embedded) for address in config.clamav.addresses],
        publish=publish,
        scan_timeout=config.clamav.scan_timeout,
        signature_poll=config.clamav.signature_poll,
        accept_test_signatures=config.clamav.accept_test_signatures,
        epoch=epoch,
    )


def _clamd(address: str, embedded: Clamd | None) -> Clamd:
    if address == EMBEDDED and embedded is not None:
        return embedded
    parsed = ClamdAddress.parse(address)
    visible = DATABASE if parsed.local and DATABASE.is_dir() else None
    return Clamd(parsed, database=lambda: visible)


async def clamd_beside(
    config: Config, stack: AsyncExitStack, publish: Publish, note: Callable[[str], None]
) -> Clamd | None:
    """What `embedded` is for a command beside the service, on whose `stack` one may be started for the time.

    None where the configuration does not name it; `note` is told where the clamd is from.
    """
    if EMBEDDED not in config.clamav.addresses:
        return None
    users = []  # whoever owns `state_dir` is the service's user
    with suppress(OSError):
        users.append(config.state_dir.stat().st_uid)
    return await stack.enter_async_context(embedded_beside(users, _databases(config), publish, note))


async def _verdict_cache(config: Config, stack: AsyncExitStack, publish: Publish) -> VerdictCache:
    memory = Memory()
    if config.verdict_cache.url == Memory.name:
        return memory
    return await stack.enter_async_context(Sqlite(config.state_dir / "verdicts.sqlite", publish, memory))


def _transport(config: Config) -> Transport:
    homeserver = config.homeserver
    headers = homeserver.additional_headers.items()
    return Transport(
        proxy=homeserver.proxy,
        tls=trusting(homeserver.ca_file, "homeserver.ca_file") if homeserver.ca_file else None,
        additional_headers={name: value.get_secret_value() for name, value in headers},
        headers_to_forward=homeserver.headers_to_forward,
    )


def _upstream(config: Config, transport: Transport, budget: Budget, publish: Publish) -> Upstream:
    homeserver = config.homeserver
    return Upstream(
        homeserver.url,
        budget=budget,
        media_size=config.limits.media_size,
        timers=Timers(homeserver.first_byte_timeout, homeserver.idle_timeout, homeserver.total_timeout),
        redirect_hosts=frozenset(homeserver.redirect_hosts),
        publish=publish,
        transport=transport,
    )


def _policy(config: Config) -> Policy:
    policy = config.policy
    return Policy(
        deliver_encrypted_archives=policy.encrypted_archives == "deliver",
        deliver_encrypted_documents=policy.encrypted_documents == "deliver",
        deliver_unscannable=policy.unscannable == "deliver",
        observe=policy.mode == "observe",
    )


def _readiness(config: Config, judge: Judge, upstream: Upstream, freshclam: Freshclam | None) -> Readiness:
    return Readiness(
        backends=judge.clamav.backends,
        canary_healthy=lambda: judge.canary.healthy,
        homeserver_reachable=upstream.reachable,
        max_signature_age=config.clamav.max_signature_age,
        accept_test_signatures=config.clamav.accept_test_signatures,
        update_problem=lambda: freshclam.problem if freshclam is not None else "",
    )


def _prepare(
    config: Config, *, judge: Judge, api: ContentScanner, log: Log, sites: Sequence[Site]
) -> Preparation:
    """Everything of `reload.RELOADABLE`; reads the secret files, and nothing else takes any time."""
    keys = _server_keys(config)
    lists = config.policy.allowed_types, config.policy.blocked_types
    pipeline = judge.pipeline.replacing(judge.mime.with_lists(*lists))
    terms = Terms(_policy(config), keys, pipeline)

    def put_in_force() -> None:
        api.terms = terms
        log.set_level(config.log.level)
        for site in sites:
            site.trusted_proxies = config.server.trusted_proxies
            site.language = config.policy.language

    return Preparation(put_in_force, keys.public_key != api.terms.keys.public_key)


def _wake(canary: Canary, event: Event) -> None:
    if isinstance(event, BackendChanged) and event.state in ("up", "version"):
        canary.wake()


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
        language=config.policy.language,
    )
    stack.push_async_callback(site.drain, _DRAIN[key])
    try:
        await site.listen(parts.hostname or "", parts.port or 0)
    except OSError as error:
        problem = error.strerror if isinstance(error, gaierror) else os.strerror(error.errno or 0)
        raise ConfigError(f"server.{key}: cannot listen on {address}: {problem}") from None
    return site
