"""Names in a quarantine store."""

from __future__ import annotations

from datetime import UTC, datetime

from scanner.quarantine.layout import (
    content_of,
    deliveries_key,
    deliveries_of,
    detection_key,
    fingerprint,
    identity,
    object_key,
    replica_of,
)


def test_a_sample_is_named_by_its_recipients_and_its_plaintext() -> None:
    assert object_key("aa", "0123" + "f" * 60) == "v1/objects/aa/sha256/01/23/0123" + "f" * 60


def test_recipients_are_the_same_in_whatever_order_and_others_are_not() -> None:
    one, other = b"1" * 32, b"2" * 32
    assert fingerprint([one, other]) == fingerprint([other, one])
    assert len({fingerprint([one]), fingerprint([other]), fingerprint([one, other])}) == 3


def test_a_detection_is_found_by_its_day() -> None:
    assert detection_key(datetime(2026, 1, 2, tzinfo=UTC), "ab") == "v1/detections/2026/01/02/ab.json"


def test_a_detection_is_the_same_for_the_same_content_and_media_alone() -> None:
    assert identity("a", "mxc://x/y") == identity("a", "mxc://x/y")
    assert len({identity("a", "mxc://x/y"), identity("b", "mxc://x/y"), identity("a", "mxc://x/z")}) == 3


def test_deliveries_of_all_replicas_lie_below_their_content() -> None:
    key = deliveries_key("ab" * 32, "replica1")
    assert key == f"v1/deliveries/{'ab' * 32}/replica1"
    assert key.startswith(deliveries_of("ab" * 32))
    assert (content_of(key), replica_of(key)) == ("ab" * 32, "replica1")


def test_a_sample_names_its_content() -> None:
    key = object_key("0123456789abcdef", "ab" * 32)
    assert (content_of(key), replica_of(key)) == ("ab" * 32, "")


def test_a_strange_name_is_that_of_no_content() -> None:
    keys = ["", "v1/deliveries/x/y", f"v1/deliveries/{'AB' * 32}/y", f"v1/objects/{'ab' * 32}/y"]
    assert [(content_of(key), replica_of(key)) for key in keys] == [("", "")] * 4
