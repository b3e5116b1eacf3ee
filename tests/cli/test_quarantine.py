"""`media-scanner quarantine list|stats`."""

from __future__ import annotations

import csv
import io
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.command import ROOT, refused
from tests.cli.desk import Desk
from tests.quarantine.stock import NOW, digest, put_record


def test_contents_are_listed_the_last_seen_first(desk: Desk) -> None:
    desk.keep(b"old", at=NOW - timedelta(days=2), signatures=("Old.Name-1",))
    desk.keep(b"new")
    done = desk.quarantine("list")
    assert (done.returncode, done.stderr) == (0, "")
    head, new, old = done.stdout.splitlines()
    assert head.split() == ["LAST", "SEEN", "(UTC)", "SHA-256", "SIGNATURE", "SIZE", "SEEN", "STATE"]
    assert (
        new.split() == "2026-11-21 12:00 {} Win.Trojan.Agent-1 3 B 1 kept".format(digest(b"new")[:12]).split()
    )
    assert "Old.Name-1" in old


def test_json_is_a_line_for_each_content(desk: Desk) -> None:
    desk.keep()
    desk.do(put_record(desk.store, media="mxc://example.org/again"))
    [line] = desk.lines("list")
    assert line == {
        "sha256": digest(b"sample"),
        "sha1": line["sha1"],
        "md5": line["md5"],
        "state": "kept",
        "held": False,
        "last_seen": "2026-11-21T12:00:00.000+00:00",
        "detections": 2,
        "signatures": ["Win.Trojan.Agent-1"],
        "size": 6,
        "mime_type": "application/x-dosexec",
        "media": ["mxc://example.org/abc", "mxc://example.org/again"],
        "sources": ["download"],
        "encrypted": False,
    }


def test_csv_has_a_row_for_each_content(desk: Desk) -> None:
    desk.keep(signatures=("=cmd",))
    [row] = csv.DictReader(io.StringIO(desk.quarantine("list", "--csv").stdout))
    assert (row["sha256"], row["signatures"]) == (digest(b"sample"), "'=cmd")


@pytest.mark.parametrize("command", ["list", "stats"])
def test_filters_leave_what_is_meant(desk: Desk, command: str) -> None:
    now = datetime.now(UTC)
    desk.keep(b"one", at=now - timedelta(hours=2), signatures=("Win.A-1",), media="mxc://a.org/1")
    desk.keep(b"two", at=now - timedelta(days=3), signatures=("Doc.B-1",), source="upload")
    for filters in (
        ("--since", "24h"),
        ("--signature", "win.*"),
        ("--hash", digest(b"one")[:8]),
        ("--media", "mxc://a.org/*"),
        ("--source", "download"),
    ):
        [line] = desk.lines(command, *filters)
        assert line.get("sha256", digest(b"one")) == digest(b"one")
        assert line.get("contents", 1) == 1
    assert len(desk.lines("list", "--until", "24h")) == 1


@pytest.mark.parametrize("command", ["list", "stats"])
def test_nothing_found_is_exit_code_1(desk: Desk, command: str) -> None:
    done = desk.quarantine(command)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_time_that_is_none_is_refused(desk: Desk) -> None:
    assert refused(desk.quarantine("list", "--since", "\x1b[2J")).startswith("--since: \\x1b[2J: neither")


def test_what_is_nothing_of_ours_is_said_and_hides_nothing(desk: Desk) -> None:
    desk.keep()
    (desk.folder / "v1/detections/readme").write_text("hello")
    done = desk.quarantine("list")
    assert done.returncode == 0
    assert digest(b"sample")[:12] in done.stdout
    assert "1 names in the store are nothing that we know" in done.stderr


def test_statistics_are_one_document_or_a_table(desk: Desk) -> None:
    desk.keep()
    [counted] = desk.lines("stats")
    assert (counted["contents"], counted["states"], counted["days"]) == (1, {"kept": 1}, {"2026-11-21": 1})
    assert "Win.Trojan.Agent-1" in desk.quarantine("stats").stdout


@pytest.mark.slow
def test_a_bar_moves_on_a_terminal_and_never_in_the_results(desk: Desk) -> None:
    for number in range(100):
        desk.do(put_record(desk.store, media=f"mxc://a.org/{number}"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "scanner", "quarantine", "list", "--json", "--store", str(desk.folder)]
    environ = {"PATH": os.defpath, "TERM": "xterm"}
    done = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert b"Reading records" in shown
    assert done.stdout.count(b"\n") == 1
