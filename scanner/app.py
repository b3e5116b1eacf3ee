"""The composition root: a configuration in, a running service out. With `judge.py` it knows every class.

Resources are entered in the order in which they need each other and left in reverse: the listeners
drain first, the log closes last.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from socket import gaierror
from urllib.parse import urlsplit

from scanner.admission import Budget, Slots
from scanner.analysts import follow_analysts, rules_of
from scanner.bus import Bus
from scanner.clamd.freshclam import Freshclam
from scanner.clamd.home import EMBEDDED, OWN_DATABASE
from scanner.clamd.sources import Sources
from scanner.clamd.supervisor import EmbeddedClamd
from scanner.config import Config
from scanner.consequences import tell_the_homeserver
from scanner.crypto.pk import ServerKeys
from scanner.engines.clamav import ClamAV
from scanner.epoch import Epoch
from scanner.errors import ConfigError
from scanner.event_sinks.log import Log
from scanner.events import Publish
from scanner.gauges import add_configuration_gauges, add_gauges
from scanner.judge import Judge, databases_of, in_background, judging
from scanner.key_files import (
    INDEX_SECRET,
    REQUEST_SECRET,
    read_or_generate_secret,
    read_secret,
    server_keys,
)
from scanner.library_log import library_log
from scanner.metrics import Metrics
from scanner.ports import Recorder, VerdictCache
from scanner.quarantine.homeserver import HomeserverQuarantine
from scanner.quarantine.overrides import StoredOverrides
from scanner.quarantine.shipper import Shipper
from scanner.readiness import Readiness
from scanner.reload import Preparation, Reloader
from scanner.safekeeping import keep_detections, store_of
from scanner.tls import trusting
from scanner.upstream.connection import Connection, Timers
from scanner.upstream.fetch import Upstream
from scanner.upstream.relay import Relay
from scanner.upstream.transport import Transport
from scanner.verdict import IndexSecret, Policy
from scanner.verdict_cache.memory import Memory
from scanner.verdict_cache.sqlite import Sqlite
from scanner.web.content_scanner import ContentScanner
from scanner.web.federation import Federation
from scanner.web.homeserver import HomeserverMedia
from scanner.web.inspect import Inspect
from scanner.web.inspection import Inspector, Terms
from scanner.web.operations import Operations
from scanner.web.routes import ROUTES, Route, operations_routes, public_routes
from scanner.web.scan_file import ScanFile
from scanner.web.server import Site
from scanner.web.uploads import Uploads

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


@asynccontextmanager
async def running(config: Config, version: str) -> AsyncIterator[Service]:
    """The service, accepting requests inside the block. Raises ConfigError before it accepts any."""
    async with AsyncExitStack() as stack:
        keys, index, transport = _server_keys(config), _index_secret(config), _transport(config)
        inspect_secret = _inspect_secret(config)
        backends = [(ClamAV.name, address) for address in config.clamav.addresses]
        metrics = Metrics(version, ROUTES, backends, config.verdict_cache.url)
        log = await stack.enter_async_context(Log(config.log.level, version=version))
        bus = Bus((metrics, log))
        publish = bus.publish
        stack.enter_context(library_log(publish))
        embedded = await _embedded_clamd(config, stack, publish)
        freshclam = await _freshclam(config, stack, embedded, publish)
        cache = await _verdict_cache(config, stack, publish)
        epoch = Epoch(config.state_dir)
        await in_background(stack, epoch.follow())
        store = await store_of(config, stack) if config.quarantine.store != "off" else None
        outbox, shipper = await keep_detections(config, stack, store, bus, index, metrics)
        overrides = await follow_analysts(config, stack, store, index, publish, metrics)
        judge = await stack.enter_async_context(
            judging(
                config,
                bus,
                embedded=None if embedded is None else embedded.clamd,
                cache=cache,
                index=index,
                epoch=lambda: epoch.current,
                quarantine=outbox,
            )
        )
        connection = await stack.enter_async_context(_connection(config, transport, publish))
        there = await tell_the_homeserver(config, stack, bus, metrics, connection, overrides)
        readiness = _readiness(config, judge, connection, freshclam, shipper, overrides, there)
        recorders: list[Recorder] = [each for each in (outbox, there) if each is not None]
        terms = Terms(_policy(config), keys, judge.pipeline)
        inspector = Inspector(terms, publish, index, recorders, overrides)
        operations = Operations(
            readiness.reasons, metrics.render, lambda: inspector.terms.policy.mode, readiness.warnings
        )
        public = _public_routes(config, connection, judge.budget, inspector, publish, operations)
        inspect = _inspect(config, inspect_secret, inspector, judge.budget)
        own_routes = operations_routes(operations, inspect)
        own_site = await _listen(config, stack, publish, "ops_listen", own_routes)
        site = await _listen(config, stack, publish, "listen", public, transport)
        prepare = partial(
            _prepare, judge=judge, inspector=inspector, overrides=overrides, log=log, sites=(own_site, site)
        )
        reloader = Reloader(config, prepare=prepare, publish=publish)
        service = Service(reloader, judge.clamav, cache, judge.budget, judge.slots, readiness, site)
        _add_gauges(metrics, judge, cache, site, log, freshclam)
        add_configuration_gauges(
            metrics,
            mode=lambda: inspector.terms.policy.mode,
            last_reload=lambda: (reloader.successful, reloader.succeeded_at),
        )
        yield service


def _add_gauges(
    metrics: Metrics,
    judge: Judge,
    cache: VerdictCache,
    site: Site,
    log: Log,
    freshclam: Freshclam | None,
) -> None:
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


def _server_keys(config: Config) -> ServerKeys:
    crypto = config.crypto
    return server_keys(crypto.secret_file, config.state_dir / REQUEST_SECRET, crypto.retired_secret_files)


def _index_secret(config: Config) -> IndexSecret:
    return IndexSecret(
        read_or_generate_secret(
            config.crypto.index_secret_file, config.state_dir / INDEX_SECRET, "crypto.index_secret_file"
        )
    )


def _inspect_secret(config: Config) -> bytes | None:
    file = config.server.inspect_secret_file
    return None if file is None else read_secret(file, "server.inspect_secret_file")


def _inspect(config: Config, secret: bytes | None, inspector: Inspector, budget: Budget) -> Inspect | None:
    """Without a secret there is no such route."""
    if secret is None:
        return None
    size = config.limits.media_size
    return Inspect(inspector=inspector, share=budget.inspections, media_size=size, secret=secret)


async def _embedded_clamd(config: Config, stack: AsyncExitStack, publish: Publish) -> EmbeddedClamd | None:
    if EMBEDDED not in config.clamav.addresses:
        return None
    return await stack.enter_async_context(EmbeddedClamd(publish, databases=databases_of(config)))


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


def _connection(config: Config, transport: Transport, publish: Publish) -> Connection:
    homeserver = config.homeserver
    return Connection(
        homeserver.url,
        transport=transport,
        redirect_hosts=frozenset(homeserver.redirect_hosts),
        publish=publish,
        timers=Timers(homeserver.first_byte_timeout, homeserver.idle_timeout, homeserver.total_timeout),
    )


def _public_routes(
    config: Config,
    connection: Connection,
    budget: Budget,
    inspector: Inspector,
    publish: Publish,
    operations: Operations,
) -> Sequence[Route]:
    size = config.limits.media_size
    upstream = Upstream(connection, budget=budget, media_size=size, publish=publish)
    relay = Relay(connection)
    return public_routes(
        ContentScanner(upstream=upstream, inspector=inspector),
        ScanFile(relay=relay, inspector=inspector, share=budget.uploads, media_size=size),
        Uploads(relay=relay, inspector=inspector, share=budget.uploads, media_size=size),
        HomeserverMedia(upstream=upstream, relay=relay, inspector=inspector, media_size=size),
        Federation(upstream=upstream, inspector=inspector),
        operations,
    )


def _policy(config: Config) -> Policy:
    policy = config.policy
    return Policy(
        deliver_encrypted_archives=policy.encrypted_archives == "deliver",
        deliver_encrypted_documents=policy.encrypted_documents == "deliver",
        deliver_unscannable=policy.unscannable == "deliver",
        deliver_opaque_uploads=policy.opaque_uploads == "deliver",
        deliver_opaque_downloads=policy.opaque_downloads == "deliver",
        observe=policy.mode == "observe",
    )


def _readiness(
    config: Config,
    judge: Judge,
    homeserver: Connection,
    freshclam: Freshclam | None,
    shipper: Shipper | None,
    overrides: StoredOverrides | None,
    there: HomeserverQuarantine | None,
) -> Readiness:
    return Readiness(
        backends=judge.clamav.backends,
        canary_healthy=lambda: judge.canary.healthy,
        homeserver_reachable=homeserver.reachable,
        max_signature_age=config.clamav.max_signature_age,
        accept_test_signatures=config.clamav.accept_test_signatures,
        update_problem=lambda: freshclam.problem if freshclam is not None else "",
        quarantine_problem=lambda: shipper.problem if shipper is not None else "",
        overrides_problem=lambda: overrides.problem if overrides is not None else "",
        admin_problem=lambda: there.problem if there is not None else "",
    )


def _prepare(
    config: Config,
    *,
    judge: Judge,
    inspector: Inspector,
    overrides: StoredOverrides | None,
    log: Log,
    sites: Sequence[Site],
) -> Preparation:
    """Everything of `reload.RELOADABLE`; reads the secret files, and nothing else takes any time."""
    keys = _server_keys(config)
    terms, rules = Terms(_policy(config), keys, judge.pipeline_under(config)), rules_of(config)

    def put_in_force() -> None:
        inspector.terms = terms
        if overrides is not None:
            overrides.set_rules(rules)
        log.set_level(config.log.level)
        for site in sites:
            site.trusted_proxies = config.server.trusted_proxies
            site.language = config.policy.language

    return Preparation(put_in_force, keys.public_key != inspector.terms.keys.public_key)


async def _listen(
    config: Config,
    stack: AsyncExitStack,
    publish: Publish,
    key: str,
    routes: Sequence[Route],
    transport: Transport | None = None,
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
        forwarded=(transport or Transport()).forwarded,
    )
    stack.push_async_callback(site.drain, _DRAIN[key])
    try:
        await site.listen(parts.hostname or "", parts.port or 0)
    except OSError as error:
        problem = error.strerror if isinstance(error, gaierror) else os.strerror(error.errno or 0)
        raise ConfigError(f"server.{key}: cannot listen on {address}: {problem}") from None
    return site
