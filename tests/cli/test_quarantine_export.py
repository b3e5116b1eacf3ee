"""`media-scanner quarantine export`: live malware, where somebody asked for it and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pyzipper

from scanner.cli.quarantine_export import write_new
from scanner.crypto.envelope import Mode
from scanner.errors import ConfigError
from tests.cli.command import ROOT, refused
from tests.cli.desk import Desk
from tests.quarantine.stock import OTHER, SOC, digest, envelope, put_sample, sample_key

SHA256 = digest(b"sample")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.zip"


def test_it_is_an_archive_with_the_usual_password_for_its_owner_alone(desk: Desk, target: Path) -> None:
    desk.keep()
    done = desk.quarantine("export", SHA256[:10], "--to", target, "--key-file", desk.soc)
    assert (done.returncode, done.stdout) == (0, f"{target}: {SHA256}, 6 bytes\n")
    assert "password is infected" in done.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pyzipper.AESZipFile(target) as archive:
        assert archive.namelist() == [SHA256]
        assert archive.read(SHA256, pwd=b"infected") == b"sample"


def test_raw_is_the_sample_itself_and_json_says_so(desk: Desk, target: Path) -> None:
    desk.keep()
    [said] = desk.lines("export", SHA256, "--raw", "--yes", "--to", target, "--key-file", desk.soc)
    assert said == {"sha256": SHA256, "file": str(target), "format": "raw", "size": 6}
    assert target.read_bytes() == b"sample"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("option", [(), ("--raw", "--yes")])
def test_nothing_is_overwritten_or_followed(desk: Desk, target: Path, option: tuple[str, ...]) -> None:
    desk.keep()
    target.symlink_to(target.parent / "elsewhere")
    said = refused(desk.quarantine("export", SHA256, *option, "--to", target, "--key-file", desk.soc))
    assert said == f"--to: {target}: exists already; nothing is overwritten"
    assert not (target.parent / "elsewhere").exists()
    with pytest.raises(ConfigError, match="File exists"):
        write_new(target, b"x")


def test_raw_without_anybody_there_needs_yes(
    desk: Desk, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.keep()
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    said = refused(desk.quarantine("export", SHA256, "--raw", "--to", target, "--key-file", desk.soc))
    assert "with --yes it does not" in said
    assert not target.exists()


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_raw_asks_for_the_file_once_more(desk: Desk, target: Path, same: bool) -> None:
    desk.keep()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "scanner", "quarantine", "export", SHA256, "--raw", "--to", str(target)]
    command += ["--key-file", str(desk.soc), "--store", str(desk.folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(0.1)
        os.write(ours, f"{target if same else '/elsewhere'}\n".encode())
        _, said = process.communicate(timeout=30)
    os.close(theirs)
    os.close(ours)
    assert "Live malware will be written" in said
    assert process.returncode == (0 if same else 2)
    assert target.exists() is same


def test_what_is_not_what_its_name_says_is_not_written(desk: Desk, target: Path) -> None:
    desk.do(desk.store.put(sample_key(b"sample"), envelope(b"simple")))
    said = refused(desk.quarantine("export", SHA256, "--to", target, "--key-file", desk.soc))
    assert said == "what is in it is not what its name says"
    assert not target.exists()


def test_it_takes_as_many_keys_as_it_is_sealed_to(desk: Desk, target: Path) -> None:
    desk.do(put_sample(desk.store, b"sample", SOC, OTHER, mode=Mode.ALL))
    said = refused(desk.quarantine("export", SHA256, "--to", target, "--key-file", desk.soc))
    assert said == "the sample takes 2 of the 2 keys that it is sealed to; given: 1"
    keys = ("--key-file", desk.soc, "--key-file", desk.other)
    assert desk.quarantine("export", SHA256, "--to", target, *keys).returncode == 0


def test_of_several_copies_the_one_is_taken_that_the_key_opens(desk: Desk, target: Path) -> None:
    for key in (SOC, OTHER):
        desk.do(put_sample(desk.store, b"sample", key))
    assert desk.quarantine("export", SHA256, "--to", target, "--key-file", desk.other).returncode == 0


@pytest.mark.timeout(10)
def test_keys_that_are_none_are_refused(desk: Desk, target: Path, tmp_path: Path) -> None:
    """What never ends, or never begins, among them."""
    desk.keep()
    assert refused(desk.quarantine("export", SHA256, "--to", target)).startswith("--key-file: needed")
    os.mkfifo(tmp_path / "fifo")
    for file, problem in (
        (tmp_path / "absent", "No such file"),
        (desk.secret("short", b"x"), "32 bytes"),
        (Path("/dev/zero"), "is no regular file"),
        (tmp_path / "fifo", "is no regular file"),
    ):
        said = refused(desk.quarantine("export", SHA256, "--to", target, "--key-file", file))
        assert said.startswith(f"--key-file: {file}: ")
        assert problem in said


def test_what_has_no_sample_is_exit_code_1(desk: Desk, target: Path) -> None:
    done = desk.quarantine("export", SHA256, "--to", target, "--key-file", desk.soc)
    assert (done.returncode, target.exists()) == (1, False)


def test_a_folder_that_is_not_there_is_one_line(desk: Desk, tmp_path: Path) -> None:
    desk.keep()
    done = desk.quarantine("export", SHA256, "--to", tmp_path / "a/b", "--key-file", desk.soc)
    assert done.returncode == 2
    assert done.stderr.endswith(f"media-scanner: --to: {tmp_path}/a/b: No such file or directory\n")


def test_no_torn_file_is_left_where_the_disk_is_full(target: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, limits[1]))
    try:
        with pytest.raises(ConfigError, match="too large"):
            write_new(target, b"sample")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not target.exists()
