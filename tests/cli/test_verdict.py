from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from scanner.analysts import rules_of
from scanner.app import Service, running
from scanner.config import Config
from scanner.epoch import Epoch
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Kind, Standing, Statement, words_on_contents
from scanner.quarantine.layout import action_key
from scanner.web.routes import API
from tests.cli.command import media_scanner, refused
from tests.cli.office import Office
from tests.fake_homeserver import FakeHomeserver, serving, until
from tests.quarantine.people import SHA256, signed
from tests.real_clamd import Clamd
from tests.test_app import configured, get


def test_epoch_of_the_state_directory_is_raised(tmp_path: Path) -> None:
    done = media_scanner("verdict", "forget", "--all", MEDIA_SCANNER__STATE_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert "scanned anew" in done.stderr
    assert Epoch(tmp_path).current > 0
    done = media_scanner("verdict", "forget", "--all", "--json", MEDIA_SCANNER__STATE_DIR=str(tmp_path))
    assert (json.loads(done.stdout), done.stderr) == ({"action": "forget", "sha256": None}, "")


def test_without_a_state_directory_it_is_one_line(tmp_path: Path) -> None:
    state = tmp_path / "absent"
    said = refused(media_scanner("verdict", "forget", "--all", MEDIA_SCANNER__STATE_DIR=str(state)))
    assert said == f"state_dir: {state}/verdict-epoch: No such file or directory"


def test_nothing_is_forgotten_unless_it_is_said_that_all_is_meant(tmp_path: Path) -> None:
    done = media_scanner("verdict", "forget", MEDIA_SCANNER__STATE_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "--all" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def hits(service: Service) -> float:
    """How often a verdict was known."""
    _, text = await get(service.config.server.ops_listen, "/metrics")
    lines = [line for line in text.decode().splitlines() if "verdict_cache_requests_total{" in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'result="hit"' in line)


@pytest.mark.real
@pytest.mark.parametrize("url", ["memory", "sqlite"])
async def test_running_service_scans_anew_what_was_forgotten(tmp_path: Path, clamd: Clamd, url: str) -> None:
    async def hits_of_three_downloads(service: Service) -> float:
        await until(lambda: service.clamav.backends[0].up, 5)
        before = await hits(service)
        for _ in range(3):
            assert (await get(config.server.listen, f"{API}/download/a.org/letter"))[0] == 200
        return await hits(service) - before

    async with FakeHomeserver() as homeserver:
        homeserver.script = serving(b"a letter")
        addresses = [f"unix:{clamd.socket}"]
        config = configured(
            tmp_path, homeserver.url, clamav={"addresses": addresses}, verdict_cache={"url": url}
        )
        async with running(config, "1") as service:
            assert [await hits_of_three_downloads(service) for _ in range(2)] == [2, 3]
            known = service.clamav.versions()
            await asyncio.to_thread(Epoch(tmp_path).advance)
            await until(lambda: service.clamav.versions() != known, 5)
            assert [await hits_of_three_downloads(service) for _ in range(2)] == [2, 3]
        async with running(config, "1") as service:  # what was forgotten stays so, the rest was kept
            assert await hits_of_three_downloads(service) == (3 if url == "sqlite" else 2)


# -- what analysts say ---------------------------------------------------------------------------


def said(office: Office, *words: str, by: str = "alice") -> None:
    done = office.run("verdict", words[0], SHA256, "--reason", "because", *words[1:], by=by)
    assert (done.returncode, done.stderr) == (0, ""), done


def test_contents_that_were_never_seen_are_allowed_and_denied(tmp_path: Path) -> None:
    office = Office(tmp_path)
    said(office, "allow")
    said(office, "deny")
    assert office.standings() == {"allow": "approved", "deny": "approved"}


def test_of_two_words_at_once_the_later_holds(tmp_path: Path) -> None:
    office = Office(tmp_path)
    for action in ("allow", "deny", "allow", "deny"):
        said(office, action)
    listed = office.run("verdict", "list", "--json").stdout.splitlines()
    assert len({json.loads(line)["issued"] for line in listed}) == 4
    assert words_in_force(office)[SHA256].action is Kind.DENY
    said(office, "forget")
    assert words_in_force(office) == {}


def words_in_force(office: Office) -> dict[str, Statement]:
    rules = rules_of(Config.load(office.config, {}))
    judged = rules.judge_all(asyncio.run(Actions(office.store).filed()), time.time() + 60)
    approved = [each.signed for each, standing in judged if standing is Standing.APPROVED]
    return words_on_contents(signed.statement for signed in approved if signed is not None)


def test_list_shows_who_said_what_and_until_when_on_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    office = Office(tmp_path, four_eyes=True)
    said(office, "allow", "--expires", "2999-01-31")
    lines = office.run("verdict", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["ID", "ACTION", "SHA-256", "BY", "UNTIL", "STANDING"]
    assert lines[1].split()[1:] == ["allow", SHA256[:12], "alice", "2999-02-01", "waiting"]
    [told] = [
        json.loads(line) for line in office.run("verdict", "list", SHA256, "--json").stdout.splitlines()
    ]
    assert (told["sha256"], told["reason"], told["approvals"]) == (SHA256, "because", [])
    assert office.run("verdict", "list", "0" * 64).returncode == 1


def test_list_shows_what_is_refused_only_where_all_is_asked_for(tmp_path: Path) -> None:
    office = Office(tmp_path)

    async def filed() -> None:
        await office.store.put(action_key("x"), b"{}")
        await Actions(office.store).file(signed(reason="\x1b[31m"))

    asyncio.run(filed())
    assert office.run("verdict", "list").returncode == 1
    everything = office.run("verdict", "list", "--all").stdout
    assert "malformed" in everything
    assert "other store" in everything
    assert "\x1b" not in everything


def test_what_is_replayed_is_listed_as_such(tmp_path: Path) -> None:
    office = Office(tmp_path)
    what = signed(store=f"{tmp_path}/quarantine")

    async def filed() -> None:
        await Actions(office.store).file(what)
        await office.store.put(action_key("second"), what.to_json())

    asyncio.run(filed())
    listed = office.run("verdict", "list", "--all", "--json").stdout.splitlines()
    assert [(each["id"], each["standing"]) for each in map(json.loads, listed)] == [
        (what.id, "approved"),
        ("second", "replayed"),
    ]


def test_what_was_said_is_taken_back_for_as_long_as_it_would_hold(tmp_path: Path) -> None:
    office = Office(tmp_path)
    assert "nothing that was said" in refused(
        office.run("verdict", "forget", SHA256, "--reason", "x", by="alice")
    )
    said(office, "deny", "--expires", "2999-01-31")
    said(office, "allow", "--expires", "1d")
    said(office, "forget", by="bob")
    listed = map(json.loads, office.run("verdict", "list", "--json").stdout.splitlines())
    assert {each["action"]: each["expires"][:10] for each in listed}["forget"] == "2999-02-01"


def test_taking_back_needs_a_reason_and_a_key(tmp_path: Path) -> None:
    office = Office(tmp_path)
    assert office.run("verdict", "forget", SHA256, "--reason", "x").returncode == 2
    assert office.run("verdict", "forget", SHA256, by="alice").returncode == 2
    assert office.run("verdict", "forget", SHA256, "--all").returncode == 2
