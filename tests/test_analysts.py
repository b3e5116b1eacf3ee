"""Analysts' decisions in a service that runs: from the command line to what users get."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from scanner.analysts import audit_keys, rules_of, signing_analyst, store_name
from scanner.app import Service, running
from scanner.config import Config
from scanner.crypto.signing import Signer
from scanner.errors import ConfigError
from scanner.key_files import read_secret
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Signed
from scanner.quarantine.audit import name_of_scanner
from scanner.quarantine.layout import action_key, approval_key
from scanner.stores.local import Local
from scanner.web.routes import API
from tests.cli.office import Office
from tests.fake_homeserver import FakeHomeserver, serving, until
from tests.quarantine.people import MALLORY, approved, signed, statement
from tests.real_clamd import EICAR, Clamd
from tests.test_app import configured, get

LETTER = b"a letter"


def of(tmp_path: Path, **quarantine: Any) -> Config:
    return Config.model_validate({"state_dir": tmp_path, "quarantine": quarantine})


def test_store_has_a_name_of_its_own_unless_it_is_given_one(tmp_path: Path) -> None:
    s3 = {"bucket": "q", "prefix": "matrix/"}
    there = {**s3, "endpoint_url": "https://s3.example.org"}
    assert store_name(of(tmp_path)) == f"{tmp_path}/quarantine"
    assert store_name(of(tmp_path, store="s3", s3=s3)) == "s3://q/matrix/"
    assert store_name(of(tmp_path, store="s3", s3=there)) == "https://s3.example.org/q/matrix/"
    assert store_name(of(tmp_path, store="s3", s3=there, name="production")) == "production"


def test_key_belongs_to_an_analyst_who_may_sign(tmp_path: Path) -> None:
    office = Office(tmp_path)
    rules = rules_of(Config.load(office.config, {}))
    assert signing_analyst(office.key("bob"), rules)[1].name == "bob"
    for name in ("dave", "mallory"):
        with pytest.raises(ConfigError, match="is of nobody"):
            signing_analyst(office.key(name), rules)


def test_audit_keys_are_those_of_people_listed_scanners_and_this_machines_own(tmp_path: Path) -> None:
    office = Office(tmp_path)
    config = Config.load(office.config, {})
    assert set(audit_keys(config)) == {"alice", "bob", "carol", "dave"}
    (tmp_path / "audit-key").write_text("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    assert name_of_scanner(Signer(bytes(32)).public_key) in audit_keys(config)


async def status(service: Service) -> int:
    return (await get(service.config.server.listen, f"{API}/download/a.org/media"))[0]


async def scan(service: Service) -> bytes:
    return (await get(service.config.server.listen, f"{API}/scan/a.org/media"))[1]


async def becomes(service: Service, wanted: int) -> None:
    """Within the ten seconds that are promised."""
    ends = time.monotonic() + 10
    while await status(service) != wanted:
        assert time.monotonic() < ends
        await asyncio.sleep(0.2)


@pytest.mark.real
async def test_decision_is_in_force_within_ten_seconds_and_taken_back(tmp_path: Path, clamd: Clamd) -> None:
    office = Office(tmp_path)
    quarantine = Config.load(office.config, {}).quarantine.model_dump(include={"name", "analysts"})

    def decide(action: str, content: bytes, by: str = "alice") -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        group = "quarantine" if action == "release" else "verdict"
        done = office.run(group, action, sha256, "--reason", "a test", by=by)
        assert done.returncode == 0, done

    async with FakeHomeserver() as homeserver:
        config = configured(
            tmp_path,
            homeserver.url,
            clamav={"addresses": [f"unix:{clamd.socket}"]},
            quarantine=quarantine,
        )
        async with running(config, "1") as service:
            await until(lambda: service.clamav.backends[0].up, 5)
            homeserver.script = serving(LETTER)
            assert await status(service) == 200
            await asyncio.to_thread(decide, "deny", LETTER)
            await becomes(service, 403)
            assert json.loads(await scan(service)) == {
                "clean": False,
                "info": "This file was blocked by the security team",
            }
            await asyncio.to_thread(decide, "forget", LETTER, "bob")
            await becomes(service, 200)

            homeserver.script = serving(EICAR)
            assert await status(service) == 403
            samples = tmp_path / "quarantine" / "v1" / "objects"
            await until(lambda: any(path.is_file() for path in samples.rglob("*")), 5)
            await asyncio.to_thread(decide, "release", EICAR)
            await becomes(service, 200)
            assert json.loads(await scan(service))["clean"] is True
            _, metrics = await get(config.server.ops_listen, "/metrics")
    assert b'media_scanner_quarantine_actions_total{action="release",result="approved"} 1.0' in metrics
    assert b'media_scanner_overridden_total{override="deny"}' in metrics
    verified = await asyncio.to_thread(office.run, "audit", "verify")
    assert verified.returncode == 0, verified
    tail = await asyncio.to_thread(office.run, "audit", "tail", "--json")
    told = [json.loads(line) for line in tail.stdout.splitlines()]
    scanner = name_of_scanner(Signer(read_secret(tmp_path / "audit-key", "")).public_key)
    assert [(each["author"], each["action"]) for each in told] == [
        ("alice", "deny"),
        (scanner, "deny in force"),
        ("bob", "forget"),
        (scanner, "forget in force"),
        ("alice", "release"),
        (scanner, "release in force"),
    ]
    assert len([*(tmp_path / "quarantine" / "v1" / "detections").rglob("*.json")]) == 1


@pytest.mark.real
async def test_what_is_forged_replayed_expired_or_self_approved_is_refused_by_the_service(
    tmp_path: Path, clamd: Clamd
) -> None:
    """Each would release EICAR."""
    office = Office(tmp_path, four_eyes=True)
    quarantine = Config.load(office.config, {}).quarantine.model_dump(
        include={"name", "analysts", "four_eyes"}
    )
    refusals = ("forged", "replayed", "expired", "self_approved", "waiting")
    await put_what_does_not_count(office.store, quarantine["name"])
    async with FakeHomeserver() as homeserver:
        addresses = {"addresses": [f"unix:{clamd.socket}"]}
        config = configured(tmp_path, homeserver.url, clamav=addresses, quarantine=quarantine)
        async with running(config, "1") as service:
            await until(lambda: service.clamav.backends[0].up, 5)
            homeserver.script = serving(EICAR)
            await asyncio.sleep(6)  # longer than replicas take to look
            assert await status(service) == 403
            _, metrics = await get(config.server.ops_listen, "/metrics")
    name = "media_scanner_quarantine_actions_total"
    told = {
        each for each in refusals if f'{name}{{action="release",result="{each}"}} 1.0'.encode() in metrics
    }
    assert told == {*refusals} - {"expired"}  # what was over before is no news
    assert f'{name}{{action="release",result="approved"}} 0.0'.encode() in metrics


async def put_what_does_not_count(store: Local, name: str) -> None:
    actions = Actions(store)
    about: dict[str, Any] = {"sha256": hashlib.sha256(EICAR).hexdigest(), "store": name}
    await actions.file(Signed.by(MALLORY, statement(**about)))
    await actions.file(signed(**about))
    own, over = signed(author="bob", **about), signed(issued=1_000, expires=2_000, **about)
    for what, by in ((own, "bob"), (over, "bob")):
        await actions.approve(await actions.file(what), approved(what, by))
    again = signed(issued=int(time.time()) - 60, **about)
    await store.put(action_key("20261121T120000Z-00000000"), again.to_json())
    approval = approved(again, "bob")
    key = approval_key("20261121T120000Z-00000000", "bob", approval.digest)
    await store.put(key, approval.to_json())
