"""What a detection leads to beside the quarantine, put together: who had been given it, and the homeserver.

With `app.py` and `judge.py` it knows the classes.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from scanner.bus import Bus
from scanner.config import Config
from scanner.errors import ConfigError
from scanner.gauges import add_homeserver_quarantine_gauge
from scanner.judge import in_background
from scanner.key_files import read_token
from scanner.metrics import Metrics
from scanner.ports import Store
from scanner.quarantine.deliveries import Deliveries
from scanner.quarantine.delivery_log import DeliveryLog
from scanner.quarantine.homeserver import HomeserverQuarantine
from scanner.quarantine.outbox import Outbox
from scanner.quarantine.overrides import StoredOverrides
from scanner.upstream.admin import Admin
from scanner.upstream.connection import Connection
from scanner.verdict import IndexSecret

_ADMIN_TOKEN = "homeserver.admin_token_file"


async def keep_deliveries(
    config: Config,
    stack: AsyncExitStack,
    bus: Bus,
    *,
    outbox: Outbox,
    store: Store,
    index: IndexSecret,
) -> None:
    """Until `stack` is left, if any are to be kept. Raises ConfigError."""
    if not config.quarantine.deliveries_retention:
        forget_deliveries(config)
        return
    deliveries = await stack.enter_async_context(Deliveries(_log(config), outbox, index, bus.publish))
    bus.add(deliveries)
    await in_background(stack, deliveries.follow(store))


def forget_deliveries(config: Config) -> None:
    """Those that were kept under another configuration. Raises ConfigError."""
    try:
        _log(config).remove()
    except OSError as error:
        raise ConfigError(f"state_dir: {error.filename}: {error.strerror}") from None


def _log(config: Config) -> DeliveryLog:
    return DeliveryLog(config.state_dir / "deliveries.sqlite", config.quarantine.deliveries_retention)


async def tell_the_homeserver(
    config: Config,
    stack: AsyncExitStack,
    bus: Bus,
    metrics: Metrics,
    connection: Connection,
    overrides: StoredOverrides | None,
) -> HomeserverQuarantine | None:
    """Of releases, and of the detections that it records, until `stack` is left; None without a token for it.

    Raises ConfigError.
    """
    file = config.homeserver.admin_token_file
    if file is None:
        add_homeserver_quarantine_gauge(metrics, lambda: 0)
        return None
    read_token(file, _ADMIN_TOKEN)
    admin = Admin(connection, partial(read_token, file, _ADMIN_TOKEN))
    there = HomeserverQuarantine(
        config.state_dir / "homeserver-quarantine.sqlite",
        quarantine=admin.quarantine,
        release=admin.release,
        publish=bus.publish,
    )
    await stack.enter_async_context(there)
    await in_background(stack, there.run())
    if overrides is not None:
        await in_background(stack, there.follow(overrides.allowed))
    add_homeserver_quarantine_gauge(metrics, lambda: there.pending)
    return there
