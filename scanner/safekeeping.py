"""Where detections are kept, put together: the outbox, the store, and what brings the one to the other.

With `app.py` and `judge.py` it knows the classes.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from scanner.bus import Bus
from scanner.config import Config
from scanner.config_quarantine import Quarantine
from scanner.consequences import forget_deliveries, keep_deliveries
from scanner.crypto.envelope import Mode, public_key_of
from scanner.errors import ConfigError, EnvelopeError
from scanner.gauges import add_quarantine_gauges
from scanner.judge import in_background
from scanner.key_files import QUARANTINE_KEY, read_or_generate_secret, read_secret
from scanner.metrics import Metrics
from scanner.ports import Store
from scanner.quarantine.outbox import Outbox
from scanner.quarantine.shipper import Shipper
from scanner.stores.local import Local
from scanner.stores.s3 import S3, Bucket
from scanner.tls import trusting
from scanner.verdict import IndexSecret, Outcome

_LAST_SHIPMENT = 2.0  # seconds for what still waits when the service ends


async def keep_detections(
    config: Config,
    stack: AsyncExitStack,
    store: Store | None,
    bus: Bus,
    index: IndexSecret,
    metrics: Metrics,
) -> tuple[Outbox | None, Shipper | None]:
    """Until `stack` is left; nothing where there is no store. Raises ConfigError."""
    settings, publish = config.quarantine, bus.publish
    if store is None:
        forget_deliveries(config)
        return None, None
    outbox = Outbox(
        config.state_dir / "outbox",
        public_keys=_soc_keys(config),
        mode=Mode.ALL if settings.public_key_files else Mode.ANY,
        size=settings.outbox_size,
        outcomes=frozenset(Outcome[name.upper()] for name in settings.keep),
        keep_encrypted=settings.encrypted == "keep",
        publish=publish,
    )
    try:
        await stack.enter_async_context(outbox)
    except OSError as error:
        raise ConfigError(f"state_dir: {error.filename}: {error.strerror}") from None
    except EnvelopeError as error:
        named = "public_key_files" if settings.public_key_files else "public_key_file"
        raise ConfigError(f"quarantine.{named}: {error.info}") from None
    shipper = Shipper(outbox, store, publish)
    stack.push_async_callback(shipper.flush, _LAST_SHIPMENT)
    await in_background(stack, shipper.run())
    add_quarantine_gauges(metrics, pending=lambda: outbox.pending, held=lambda: outbox.held)
    await keep_deliveries(config, stack, bus, outbox=outbox, store=store, index=index)
    return outbox, shipper


def _soc_keys(config: Config) -> list[bytes]:
    """The public keys that samples are sealed to; that of a pair of our own where none is named."""
    if named := named_keys(config.quarantine):
        return named
    own = read_or_generate_secret(None, config.state_dir / QUARANTINE_KEY, "quarantine.public_key_file")
    return [public_key_of(own)]


def named_keys(settings: Quarantine) -> list[bytes]:
    """The SOC's public keys, read from their files; none where none is named. Raises ConfigError."""
    if settings.public_key_file is not None:
        return [read_secret(settings.public_key_file, "quarantine.public_key_file")]
    return [read_secret(file, "quarantine.public_key_files") for file in settings.public_key_files]


async def store_of(config: Config, stack: AsyncExitStack) -> Store:
    """Where the quarantine is kept, open until `stack` is left."""
    bucket = bucket_of(config)
    if bucket is None:
        return Local(config.state_dir / "quarantine")
    return await stack.enter_async_context(S3(bucket))


def bucket_of(config: Config) -> Bucket | None:
    """The store, where that is a bucket."""
    s3 = config.quarantine.s3
    if config.quarantine.store != "s3" or s3.bucket is None:
        return None
    if s3.ca_file is not None:
        trusting(s3.ca_file, "quarantine.s3.ca_file")
    return Bucket(s3.bucket, s3.prefix, s3.endpoint_url, s3.region, s3.ca_file, s3.encryption, s3.retention)
