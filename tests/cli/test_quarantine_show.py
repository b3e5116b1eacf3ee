"""`media-scanner quarantine show`: all that is known of one content."""

from __future__ import annotations

import pytest

from scanner.crypto.envelope import public_key_of
from scanner.quarantine.actions import Kind, Signed
from scanner.quarantine.delivery_records import Delivery, DeliveryRecord, sealed
from scanner.quarantine.layout import deliveries_key
from scanner.quarantine.markers import new_marker
from tests.cli.desk import Desk
from tests.cli.test_quarantine_output import HOSTILE, is_harmless
from tests.quarantine.people import signed, statement
from tests.quarantine.stock import NOW, SOC, digest, put_record, sample_key

SHA256 = digest(b"sample")


def deliver(desk: Desk, media: str, replica: str = "r1") -> None:
    delivery = Delivery(media, "ca11e4", NOW.timestamp() - 3600, NOW.timestamp(), 4)
    record = DeliveryRecord(SHA256, replica, NOW.isoformat(), NOW.isoformat(), (delivery,), omitted=2)
    desk.do(desk.store.put(deliveries_key(SHA256, replica), sealed(record, [public_key_of(SOC)])))


def test_every_detection_and_every_sample_is_shown(desk: Desk) -> None:
    desk.keep()
    desk.do(put_record(desk.store, media="mxc://example.org/again", source="upload", encrypted=True))
    shown = desk.quarantine("show", SHA256).stdout
    for words in (SHA256, "Win.Trojan.Agent-1", "kept", "mxc://example.org/abc", "upload", "158 bytes"):
        assert words in shown
    assert "mxc://example.org/again (encrypted)" in shown
    assert sample_key(b"sample") in shown.replace("\n            ", "")


def test_json_is_one_document(desk: Desk) -> None:
    desk.keep()
    [shown] = desk.lines("show", SHA256)
    [record], [sample] = shown["records"], shown["samples"]
    assert record.items() >= {"media": "mxc://example.org/abc", "request_id": "01HZX", "size": 6}.items()
    assert record["key"].endswith(f"/{record['id']}.json")
    assert sample["key"] == sample_key(b"sample")
    assert (shown["markers"], shown["delivered"], shown["delivered_unread"]) == ([], [], 0)


def test_markers_say_who_and_why(desk: Desk) -> None:
    desk.keep()
    desk.quarantine("hold", SHA256, "--as", "alice", "--reason", "case 17")
    [mark] = desk.lines("show", SHA256)[0]["markers"]
    assert mark.items() >= {"what": "hold", "by": "alice", "reason": "case 17"}.items()
    assert mark.items() >= {"counts": True, "standing": None}.items()
    shown = " ".join(desk.quarantine("show", SHA256).stdout.split())
    assert "by alice: case 17 (signature not checked: no quarantine.analysts)" in shown


def test_who_was_given_it_before_is_shown_to_those_with_the_key(desk: Desk) -> None:
    desk.keep()
    deliver(desk, "mxc://example.org/before")
    done = desk.quarantine("show", SHA256)
    assert "mxc://example.org/before" not in done.stdout
    assert "which --key-file would open: 1" in done.stderr
    shown = desk.quarantine("show", SHA256, "--key-file", desk.soc).stdout
    for words in ("mxc://example.org/before", "ca11e4", "2026-11-21 11:00:00", "more that did not fit in"):
        assert words in shown
    [document] = desk.lines("show", SHA256, "--key-file", desk.soc)
    assert document["delivered"][0]["deliveries"][0]["count"] == 4


def test_that_nobody_was_given_it_is_shown_of_who_takes_note(desk: Desk) -> None:
    since = "2026-11-01T00:00:00+00:00"
    desk.keep(replica="r1", noted_since=since)
    desk.do(put_record(desk.store, media="mxc://example.org/again", replica="r2", noted_since=None))
    shown = " ".join(desk.quarantine("show", SHA256).stdout.split())
    assert f"BY r1 since {since} never 0 -" in shown
    assert "BY r2 never 0 -" in shown
    deliver(desk, "mxc://example.org/before", "r1")
    [document] = desk.lines("show", SHA256)
    assert document["delivered_to_nobody"] == [{"replica": "r2", "since": None}]
    assert "BY r1" not in desk.quarantine("show", SHA256).stdout


@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "\ud800"])
def test_hostile_names_do_nothing(desk: Desk, text: str) -> None:
    desk.keep(replica=text, noted_since=text)
    desk.keep(media=text, request_id=text, mime_type=text, engines={text: text}, signatures=(text,))
    said = statement(Kind.HOLD, sha256=SHA256, author=text, reason=text)
    desk.do(desk.store.put(*new_marker(Signed(said, ""))))
    deliver(desk, text)
    done = desk.quarantine("show", SHA256, "--key-file", desk.soc)
    assert done.returncode == 0
    assert is_harmless(done.stdout)


def test_a_marker_that_says_nothing_is_shown_as_that(desk: Desk) -> None:
    desk.keep()
    key, _ = new_marker(signed(Kind.HOLD, sha256=SHA256))
    desk.do(desk.store.put(key, b"[" * 9_000))
    shown = desk.quarantine("show", SHA256).stdout
    assert "ignored" in shown
    assert "-, -, by -: - (it is no statement)" in shown
