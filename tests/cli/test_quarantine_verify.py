"""`media-scanner quarantine verify`."""

from __future__ import annotations

from tests.cli.command import refused
from tests.cli.desk import Desk
from tests.quarantine.stock import digest, envelope, put_record, put_sample, sample_key


def test_a_whole_store_is_exit_code_0(desk: Desk) -> None:
    desk.keep()
    done = desk.quarantine("verify", "--key-file", desk.soc)
    assert (done.returncode, done.stdout) == (
        0,
        "samples opened: 1, seen from outside: 0; problems: 0\n",
    )
    assert desk.lines("verify") == [{"summary": {"opened": 0, "unopened": 1, "problems": 0}}]


def test_an_empty_store_is_whole(desk: Desk) -> None:
    assert desk.quarantine("verify").returncode == 0


def test_each_problem_is_a_line_and_exit_code_1(desk: Desk) -> None:
    desk.keep(b"whole")
    desk.do(put_record(desk.store, b"gone"))
    alone = desk.do(put_sample(desk.store, b"alone"))
    desk.keep(b"torn")
    torn = sample_key(b"torn")
    (desk.folder / torn).write_bytes(envelope(b"torn")[:-1])
    (desk.folder / "v1/objects/notes").write_text("")
    done = desk.quarantine("verify", "--key-file", desk.soc)
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == sorted(
        [
            "v1/objects/notes: is nothing that we know",
            f"{sample_key(b'gone')}: missing; records that name it: 1",
            f"{alone}: no record names it",
            f"{torn}: it should have 156 bytes, and has 155",
            "samples opened: 2, seen from outside: 0; problems: 4",
        ]
    )
    *problems, summary = desk.lines("verify", "--key-file", desk.soc)
    assert {problem["key"] for problem in problems} >= {torn, alone}
    assert summary == {"summary": {"opened": 2, "unopened": 0, "problems": 4}}


def test_named_contents_alone_are_verified(desk: Desk) -> None:
    desk.keep()
    desk.do(put_sample(desk.store, b"alone"))
    assert desk.quarantine("verify", digest(b"sample")).returncode == 0
    assert desk.quarantine("verify", digest(b"alone")).returncode == 1


def test_what_a_key_does_not_open_is_a_problem(desk: Desk) -> None:
    desk.keep()
    done = desk.quarantine("verify", "--key-file", desk.other)
    assert done.returncode == 1
    assert "not opened: that takes 1 of other keys" in done.stdout


def test_a_key_that_is_none_is_exit_code_2(desk: Desk) -> None:
    assert refused(desk.quarantine("verify", "--key-file", "/nonexistent")).startswith("--key-file: ")
