from __future__ import annotations

import pytest

from scanner.containers.inspection import Part
from scanner.containers.opening import Opening, inspect
from scanner.containers.readers import Reader
from scanner.verdict import Reason
from tests.archives import TEXT, delivered, dubious, judged, tar_of, zip_of


def test_what_is_no_container_is_opened_with_nothing() -> None:
    assert inspect(Part.of(b"hello"), 1.0) == Opening("none")


def test_what_cannot_be_opened_has_its_reason() -> None:
    assert inspect(Part.of(zip_of({"a": TEXT})[:-30]), 1.0) is Reason.DAMAGED


def test_nobody_waiting_is_out_of_time() -> None:
    assert inspect(Part.of(zip_of({"a": TEXT})), 1.0, lambda: True) is Reason.TIME_LIMIT


def test_the_kind_is_told_of_what_must_be_opened() -> None:
    answer = inspect(Part.of(zip_of({"a": TEXT}, method=14)), 1.0)
    assert answer == Opening("zip", (Reader.LIBARCHIVE,))


def test_what_is_encrypted_is_told_of_what_is_opened_for_the_rest() -> None:
    encrypted = zip_of({"META-INF/manifest.xml": b"<encryption-data/>"})
    told = frozenset({Reason.ENCRYPTED_DOCUMENT})
    for archive in (encrypted, tar_of({"a": encrypted, "b": TEXT})):
        answer = inspect(Part.of(archive), 1.0)
        assert answer == Opening("zip" if archive is encrypted else "tar", (Reader.LIBARCHIVE,), told)


@pytest.mark.slow
def test_all_readers_deliver_what_is_to_be_opened_by_them() -> None:
    """Of every kind that programs write, the first file or what holds it."""
    opened = {}
    for kind, archive in dubious(b"first").items():
        answer = judged(archive)
        if isinstance(answer, tuple):
            views = delivered(archive, *answer)
            opened[kind] = any(views[0]) and all(view == views[0] for view in views)
    assert len(opened) > 12
    assert [kind for kind, is_delivered in opened.items() if not is_delivered] == []
