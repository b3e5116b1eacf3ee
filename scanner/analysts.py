"""The configuration's analysts and keys, as the quarantine wants them: for services and workstations."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from scanner.config import Config
from scanner.crypto.pk import parse_secret
from scanner.crypto.signing import Signer
from scanner.errors import ConfigError
from scanner.events import Publish
from scanner.gauges import add_override_gauges
from scanner.judge import in_background
from scanner.key_files import AUDIT_KEY, read_or_generate_secret, read_secret
from scanner.metrics import Metrics
from scanner.ports import Store
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Analyst, Role, Rules
from scanner.quarantine.audit import Keys, name_of_scanner
from scanner.quarantine.chain import Chain
from scanner.quarantine.notary import Notary
from scanner.quarantine.overrides import StoredOverrides
from scanner.verdict import IndexSecret


async def follow_analysts(
    config: Config,
    stack: AsyncExitStack,
    store: Store | None,
    index: IndexSecret,
    publish: Publish,
    metrics: Metrics,
) -> StoredOverrides | None:
    """Their decisions, and our part of the audit chain, until `stack` is left; None without a store."""
    if store is None:
        return None
    signer = Signer(read_or_generate_secret(None, config.state_dir / AUDIT_KEY, "state_dir"))
    chain = Chain(store, signer, name_of_scanner(signer.public_key))
    overrides = StoredOverrides(
        Actions(store), rules_of(config), index=index, note=chain.append, publish=publish
    )
    await in_background(stack, overrides.run())
    notary = Notary(chain, signer.public_key, publish, overrides.follows_anybody)
    await in_background(stack, notary.run())
    add_override_gauges(metrics, count=overrides.count, read_at=lambda: overrides.read_at)
    return overrides


def rules_of(config: Config) -> Rules:
    """Whose statements count, in which store."""
    quarantine = config.quarantine
    analysts = {
        each.name: Analyst(each.name, Role(each.role), parse_secret(each.public_key))
        for each in quarantine.analysts
    }
    return Rules(store_name(config), analysts, quarantine.four_eyes)


def store_name(config: Config) -> str:
    """What statements call this store, so that they count nowhere else."""
    quarantine, s3 = config.quarantine, config.quarantine.s3
    if quarantine.name is not None:
        return quarantine.name
    if quarantine.store == "s3":
        return f"{s3.endpoint_url or 's3:/'}/{s3.bucket}/{s3.prefix}"
    return f"{config.state_dir.absolute()}/quarantine"


def audit_keys(config: Config) -> Keys:
    """Of everybody who may write to the audit chain, this machine's scanner among them, if there is one."""
    keys = {each.name: parse_secret(each.public_key) for each in config.quarantine.analysts}
    scanners = [parse_secret(text) for text in config.quarantine.audit_public_keys]
    own = config.state_dir / AUDIT_KEY
    if own.exists():
        scanners.append(Signer(read_secret(own, "state_dir")).public_key)
    return {**keys, **{name_of_scanner(key): key for key in scanners}}


def signing_analyst(key_file: Path, rules: Rules) -> tuple[Signer, Analyst]:
    """Whose key this is. Raises ConfigError where it is nobody's who may sign."""
    signer = Signer(read_secret(key_file, "--key"))
    analyst = rules.author_of(signer.public_key)
    if analyst is None or analyst.role is Role.FORMER:
        raise ConfigError(f"--key: {key_file}: its public key is of nobody in quarantine.analysts")
    return signer, analyst
