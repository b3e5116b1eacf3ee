"""What gives verdicts, put together: engines, slots, budget, pipeline and canary.

With `app.py` the only file that knows the classes behind the ports; here, since a command beside the
service needs no more than this.
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
from typing import Any

from scanner.admission import Budget, Slots
from scanner.bus import Bus
from scanner.canary import Canary
from scanner.clamd.backend import Clamd
from scanner.clamd.freshclam import databases
from scanner.clamd.home import DATABASE, EMBEDDED
from scanner.clamd.neighbour import embedded_beside
from scanner.clamd.protocol import ClamdAddress
from scanner.config import Config
from scanner.engines.archive import Archive, Limits
from scanner.engines.clamav import ClamAV
from scanner.engines.mime import Mime
from scanner.events import BackendChanged, Event, Publish
from scanner.pipeline import Pipeline
from scanner.ports import Engine, Quarantine, VerdictCache
from scanner.unpacking.unpacker import Unpacker
from scanner.verdict import IndexSecret
from scanner.verdict_cache.memory import Memory


@dataclass(frozen=True)
class Judge:
    """What gives verdicts: the pipeline and what stands behind it, inside `judging`."""

    pipeline: Pipeline
    clamav: ClamAV
    archive: Archive
    mime: Mime
    others: Sequence[Engine]
    canary: Canary
    budget: Budget
    slots: Slots

    def pipeline_under(self, config: Config) -> Pipeline:
        """The pipeline with all that a reload may change of the engines."""
        mime = self.mime.with_lists(config.policy.allowed_types, config.policy.blocked_types)
        archive = self.archive.with_settings(_inside(config, mime, self.others), _limits(config))
        return self.pipeline.replacing(mime).replacing(archive)


@asynccontextmanager
async def judging(
    config: Config,
    bus: Bus,
    *,
    embedded: Clamd | None,
    cache: VerdictCache,
    index: IndexSecret,
    epoch: Callable[[], int] = lambda: 0,
    quarantine: Quarantine | None = None,
) -> AsyncIterator[Judge]:
    """Engines, slots, budget and pipeline: the same for whoever brings samples.

    `embedded` is the clamd that the address `embedded` stands for; `epoch` as in ClamAV.
    """
    async with AsyncExitStack() as stack:
        clamav = await stack.enter_async_context(_clamav(config, embedded, bus.publish, epoch))
        mime = await stack.enter_async_context(Mime(config.policy.allowed_types, config.policy.blocked_types))
        others: tuple[Engine, ...] = (
            # Every further engine: a file in `engines/`, and a line here. It sees what is in archives, too.
        )
        slots = Slots((os.cpu_count() or 1) * len(clamav.backends), config.limits.queue_wait)
        archive = Archive(
            await stack.enter_async_context(Unpacker(bus.publish, slots.capacity)),
            clamav,
            _inside(config, mime, others),
            publish=bus.publish,
            limits=_limits(config),
            queue_wait=config.limits.queue_wait,
        )
        pipeline = Pipeline(
            engines=(clamav, archive, mime, *others),
            cache=cache,
            slots=slots,
            index=index,
            identify=mime.identify,
            publish=bus.publish,
            clean_ttl=config.verdict_cache.clean_ttl,
            quarantine=quarantine,
            keep_encrypted=config.quarantine.encrypted == "keep",
        )
        canary = Canary(clamav.backends, bus.publish)
        bus.add(partial(_wake, canary))
        await in_background(stack, canary.run())
        limits = config.limits
        budget = Budget(
            limits.memory,
            limits.queue_wait,
            media_size=limits.media_size,
            inspected=config.server.inspect_secret_file is not None,
        )
        yield Judge(pipeline, clamav, archive, mime, others, canary, budget, slots)


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


def _inside(config: Config, mime: Mime, others: Sequence[Engine]) -> Sequence[Engine]:
    """Who judges what is in archives, beside clamd."""
    policy = config.policy
    has_lists = policy.allowed_types is not None or policy.blocked_types is not None
    return (*others, mime) if policy.types_in_archives and has_lists else others


def _limits(config: Config) -> Limits:
    return Limits(**dict(config.archives))


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
    return await stack.enter_async_context(embedded_beside(users, databases_of(config), publish, note))


def databases_of(config: Config) -> Sequence[Path]:
    """Where the embedded clamd may find signatures, the best place first."""
    return databases(always=config.clamav.freshclam == "on")


def _wake(canary: Canary, event: Event) -> None:
    if isinstance(event, BackendChanged) and event.state in ("up", "version"):
        canary.wake()


async def in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Let `work` run until the stack is left."""
    group = asyncio.TaskGroup()
    await group.__aenter__()
    stack.push_async_callback(group.__aexit__, None, None, None)  # what ends us leaves as itself, in no group
    stack.callback(group.create_task(work).cancel)
