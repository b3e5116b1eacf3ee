"""What somebody typed, and which content that is."""

from __future__ import annotations

import pytest

from tests.cli.command import refused
from tests.cli.desk import Desk
from tests.quarantine.stock import OTHER, SOC, digest, put_sample

SHA256 = digest(b"sample")


@pytest.mark.parametrize("name", [SHA256, SHA256.upper(), SHA256[:8]])
def test_a_content_is_named_by_the_beginning_of_its_hash(desk: Desk, name: str) -> None:
    desk.keep()
    assert desk.lines("show", name)[0]["sha256"] == SHA256


def test_a_content_is_named_by_one_of_its_records(desk: Desk) -> None:
    desk.keep()
    [content] = desk.contents()
    assert desk.lines("show", content.entries[0].id)[0]["sha256"] == SHA256


@pytest.mark.parametrize("command", [("show",), ("hold", "--reason", "x"), ("verify",)])
def test_what_is_not_there_is_exit_code_1(desk: Desk, command: tuple[str, ...]) -> None:
    done = desk.quarantine(*command, "0" * 64)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Nothing found: {'0' * 64}\n"


@pytest.mark.parametrize("name", ["", "af2bdbe", "xyzxyzxyz", "../../etc", "\x1b[2Jaaaaaaaa", "a" * 65])
@pytest.mark.parametrize("command", [("show",), ("hold", "--reason", "x")])
def test_what_names_no_content_is_refused(desk: Desk, command: tuple[str, ...], name: str) -> None:
    assert refused(desk.quarantine(*command, name)).endswith("8 hexadecimal digits or more name a content")


def test_a_beginning_that_several_have_is_refused(desk: Desk) -> None:
    for last in "01":
        key = f"v1/objects/{'0' * 16}/sha256/ab/cd/abcd{'0' * 59}{last}"
        desk.do(desk.store.put(key, b"x"))
    assert "2 contents have a name that begins so" in refused(desk.quarantine("show", "abcd0000"))
    assert "2 contents" in refused(desk.quarantine("hold", "abcd0000", "--reason", "x"))


def test_copies_for_several_keys_are_one_content(desk: Desk) -> None:
    for key in (SOC, OTHER):
        desk.do(put_sample(desk.store, b"sample", key))
    assert len(desk.lines("show", SHA256)[0]["samples"]) == 2
