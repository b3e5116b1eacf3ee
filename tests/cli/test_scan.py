"""`media-scanner scan` as a process, with a real clamd: what it calls clean, and what it exits with."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import pytest
import pyzipper
import yaml

from tests.archives import zip_of
from tests.cli.command import ROOT, media_scanner
from tests.cli.machine import Machine
from tests.e2e.machine import clamds_of, embedded_clamd_of, memory_of
from tests.real_clamd import EICAR, Clamd, free_port

NOBODY = "65534"
MIB = 1024 * 1024
PIPE = 4096
SIGNATURE = "Eicar-Test-Signature.UNOFFICIAL"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, and becomes somebody else")


def configuration(directory: Path, *addresses: str, **sections: dict[str, Any]) -> Path:
    tree: dict[str, Any] = {
        "state_dir": str(directory / "state"),
        "server": {"listen": f"127.0.0.1:{free_port()}", "ops_listen": f"127.0.0.1:{free_port()}"},
        "clamav": {"addresses": list(addresses), "accept_test_signatures": True, "freshclam": "off"},
    }
    for name, keys in sections.items():
        tree[name] = {**tree.get(name, {}), **keys}
    file = directory / "scanner.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def command(config: Path, *arguments: str | Path, launcher: Sequence[str] = ()) -> list[str]:
    program = [*launcher, sys.executable, "-m", "scanner", "scan", "--config", str(config)]
    return program + [str(argument) for argument in arguments]


def scan(
    config: Path, *arguments: str | Path, launcher: Sequence[str] = (), stdin: bytes = b"", **environ: str
) -> CompletedProcess[bytes]:
    return subprocess.run(
        command(config, *arguments, launcher=launcher),
        cwd=ROOT,
        env={"PATH": os.defpath} | environ,
        input=stdin,
        capture_output=True,
        timeout=50,
        check=False,
    )


def results(output: bytes) -> dict[str, str]:
    """Path to result, of `--json`; each path once, and the count behind them."""
    lines = [json.loads(line) for line in output.splitlines()]
    summary, found = lines.pop()["summary"], {line["path"]: line["result"] for line in lines}
    assert len(found) == len(lines) == summary["files"]
    return found


@pytest.fixture
def config(tmp_path: Path, clamd: Clamd) -> Path:
    return configuration(tmp_path, f"unix:{clamd.socket}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


# -- results and exit codes ----------------------------------------------------------------------


@pytest.mark.real
def test_clean_files_are_clean_and_leave_nothing_behind(config: Path, folder: Path) -> None:
    (folder / "letter").write_text("a letter")
    (folder / "empty").touch()
    done = scan(config, folder)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)
    assert sorted(done.stdout.decode().splitlines()) == [f"{folder}/empty: clean", f"{folder}/letter: clean"]
    assert {path.name for path in config.parent.iterdir()} == {"folder", "scanner.yaml"}


@pytest.mark.real
def test_the_infected_one_among_them_is_exit_code_1(config: Path, folder: Path) -> None:
    (folder / "letter").write_text("a letter")
    (folder / "sub").mkdir()
    (folder / "sub" / "eicar.zip").write_bytes(zip_of({"eicar.com": EICAR}))
    done = scan(config, "-i", folder)
    assert done.returncode == 1
    assert done.stdout.decode() == f"{folder}/sub/eicar.zip: infected {SIGNATURE}\n"
    assert b"files: 2 in " in done.stderr


@pytest.mark.real
def test_what_is_in_an_archive_that_clamd_does_not_open_is_named_by_its_path(
    config: Path, folder: Path
) -> None:
    inner = zip_of({"folder/eicar.com": EICAR, "..\n": b"x"}, zipfile.ZIP_LZMA)
    (folder / "a.zip").write_bytes(zip_of({"inner.zip": inner, "letter": b"a letter"}, zipfile.ZIP_LZMA))
    place = "inner.zip/folder/eicar.com"
    done = scan(config, folder)
    assert done.returncode == 1
    assert done.stdout.decode() == f"{folder}/a.zip: infected {SIGNATURE} in {place}\n"
    [document, _] = map(json.loads, scan(config, "--json", folder).stdout.splitlines())
    assert document["found"] == [{"signature": SIGNATURE, "path": place}]


@pytest.mark.real
def test_what_was_not_scanned_is_exit_code_2_whatever_else_was_found(config: Path, folder: Path) -> None:
    (folder / "eicar").write_bytes(EICAR)
    done = scan(config, folder / "eicar", folder / "absent", "/dev/null")
    assert done.returncode == 2
    assert sorted(done.stdout.decode().splitlines()) == [
        "/dev/null: not scanned: neither a file nor a directory",
        f"{folder}/absent: not scanned: No such file or directory",
        f"{folder}/eicar: infected {SIGNATURE}",
    ]


@pytest.mark.real
def test_a_type_that_the_policy_forbids_is_exit_code_1(tmp_path: Path, clamd: Clamd, folder: Path) -> None:
    (folder / "letter").write_text("a letter")
    file = configuration(tmp_path, f"unix:{clamd.socket}", policy={"blocked_types": ["text/*"]})
    done = scan(file, folder)
    assert (done.returncode, done.stdout.decode()) == (1, f"{folder}/letter: forbidden type\n")


@pytest.mark.real
def test_limits_come_from_file_and_environment(config: Path, folder: Path) -> None:
    with (folder / "big").open("wb") as big:
        big.truncate(MIB + 1)
    assert scan(config, folder).returncode == 0
    done = scan(config, folder, MEDIA_SCANNER__LIMITS__MEDIA_SIZE="1MiB")
    assert done.returncode == 2
    assert b": not scanned: larger than limits.media_size (1MiB)\n" in done.stdout


@pytest.mark.real
def test_json_holds_names_of_every_kind(config: Path, folder: Path) -> None:
    names = ["a\nb: clean", "\x1b[2J", "gpj\u202eexe", os.fsdecode(b"caf\xe9")]
    for name in names:
        (folder / name).write_bytes(EICAR)
    done = scan(config, "--json", folder)
    assert done.returncode == 1
    assert done.stdout.isascii()
    shown = {path.removeprefix(f"{folder}/") for path in results(done.stdout)}
    assert shown == {*names[:3], "caf\\xe9"}
    assert set(results(done.stdout).values()) == {"infected"}


@pytest.mark.real
@pytest.mark.parametrize(("content", "code"), [(EICAR, 1), (b"a letter", 0), (b"", 0)])
def test_standard_input_is_scanned(config: Path, content: bytes, code: int) -> None:
    done = scan(config, "-", stdin=content)
    assert done.returncode == code
    assert done.stdout.startswith(b"-: infected" if code else b"-: clean")


def test_standard_input_cannot_be_named_twice() -> None:
    done = media_scanner("scan", "-", "-")
    assert done.returncode == 2
    assert "standard input can be read only once" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_without_a_clamd_nothing_is_scanned_and_one_line_says_so(tmp_path: Path, folder: Path) -> None:
    (folder / "letter").write_text("a letter")
    done = scan(configuration(tmp_path, "unix:/nonexistent/clamd.sock"), folder)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (
        "media-scanner: no clamd answers (unix:/nonexistent/clamd.sock), nothing was scanned: "
        "is it up, and may this user use its socket?\n"
    )


@pytest.mark.real
def test_an_output_that_closes_is_no_result(config: Path, folder: Path) -> None:
    for number in range(100):
        (folder / str(number)).write_bytes(EICAR)
    with Popen(command(config, folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"media-scanner: standard output: Broken pipe\n"
    assert process.returncode == 2


@pytest.mark.real
def test_a_bar_moves_on_a_terminal_and_never_in_the_results(config: Path, folder: Path) -> None:
    for number in range(20):
        (folder / str(number)).write_text(f"letter {number}")
    ours, theirs = pty.openpty()
    environ = {"PATH": os.defpath, "TERM": "xterm"}
    done = subprocess.run(
        command(config, folder), cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=theirs, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert b"Scanning" in shown
    assert b"files: 20 in " in shown
    assert len(done.stdout.splitlines()) == 20
    assert b"\x1b" not in done.stdout


@pytest.mark.real
@pytest.mark.alone
def test_many_big_files_stay_inside_the_budget(tmp_path: Path, clamd: Clamd, folder: Path) -> None:
    for number in range(16):
        with (folder / str(number)).open("wb") as big:
            big.write(f"{number}".encode())
            big.truncate(19 * MIB)
    file = configuration(tmp_path, f"unix:{clamd.socket}", limits={"memory": 72 * MIB})
    used = 0
    with Popen(command(file, folder), cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                used = max(used, memory_of(process.pid))
            except (FileNotFoundError, ProcessLookupError):
                break
            time.sleep(0.02)
    assert process.returncode == 0
    assert 19 * MIB < used < (48 + 90) * MIB  # the interpreter takes half of the latter


# -- clamd dies in the middle --------------------------------------------------------------------


def mixed(folder: Path, *, locked: bool) -> dict[str, str]:
    """Makes 200 files; what a scan must say of each."""
    makers = [
        (lambda n: f"letter {n}".encode(), "clean"),
        (lambda n: EICAR + f" {n}".encode(), "infected"),
        (lambda n: zip_of({f"{n}.com": EICAR}), "infected"),
        (lambda n: zip_of({f"{n}.txt": b"a letter"}), "clean"),
        (locked_zip, "not_scanned") if locked else (lambda n: b"", "clean"),
    ]
    expected = {}
    for number in range(200):
        make, result = makers[number % len(makers)]
        path = folder / f"{number // 50}" / f"{number // 10}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(number))
        expected[str(path)] = result
    return expected


def locked_zip(number: int) -> bytes:
    buffer = io.BytesIO()
    with pyzipper.AESZipFile(buffer, "w", encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(b"infected")
        archive.writestr(f"{number}.com", EICAR)
    return buffer.getvalue()


@contextmanager
def halted(config: Path, folder: Path, launcher: Sequence[str] = ()) -> Iterator[Popen[bytes]]:
    """A scan whose output nobody reads: it waits in the middle."""
    end, output = os.pipe()
    fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE)
    arguments = command(config, "--json", folder, launcher=launcher)
    with os.fdopen(end, "rb") as pipe, Popen(arguments, cwd=ROOT, stdout=output) as process:
        os.close(output)
        process.stdout = pipe
        try:
            yield process
        finally:
            process.kill()


def first_lines(process: Popen[bytes], count: int) -> list[bytes]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def rest(process: Popen[bytes], lines: list[bytes]) -> dict[str, str]:
    assert process.stdout is not None
    found = results(b"".join(lines) + process.stdout.read())
    process.wait(20)
    return found


def check_partial(found: dict[str, str], expected: dict[str, str]) -> None:
    """All files are there, and whatever was not scanned is called so."""
    assert found.keys() == expected.keys()
    wrong = {path for path, result in found.items() if result not in {expected[path], "not_scanned"}}
    assert not wrong


@pytest.mark.real
@pytest.mark.timeout(90)
def test_nothing_is_called_clean_that_a_killed_clamd_did_not_scan_and_a_second_run_finishes(
    tmp_path: Path, folder: Path
) -> None:
    expected = mixed(folder, locked=True)
    with tempfile.TemporaryDirectory(prefix="clamd-") as directory:
        clamd = Clamd(Path(directory), settings="LogClean yes")
        clamd.start()
        try:
            config = configuration(tmp_path, f"unix:{clamd.socket}")
            with halted(config, folder) as process:
                lines = first_lines(process, 20)
                clamd.stop()
                found = rest(process, lines)
            check_partial(found, expected)
            assert process.returncode == 2
            assert 20 < list(found.values()).count("not_scanned") < 200
            scanned = clamd.log.read_text().count(": OK")
            assert 0 < list(found.values()).count("clean") <= scanned

            clamd.start()
            done = scan(config, "--json", folder)
            assert results(done.stdout) == expected
            assert done.returncode == 2  # archives with a password are never scanned
        finally:
            clamd.stop()


# -- the embedded clamd --------------------------------------------------------------------------


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """With a folder of one infected file."""
    (machine.directory / "folder").mkdir()
    (machine.directory / "folder" / "eicar").write_bytes(EICAR)
    return machine


@contextmanager
def service(machine: Machine, config: Path) -> Iterator[None]:
    """`serve`, once its clamd answers."""
    arguments = [*machine.launcher, sys.executable, "-m", "scanner", "serve", "--config", str(config)]
    with Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith(b"Try:"):
            assert process.poll() is None
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.real
@needs_root
def test_the_clamd_of_the_running_service_is_used_and_left_alone(machine: Machine) -> None:
    config = configuration(machine.directory, "embedded")
    with service(machine, config):
        before = clamds_of(machine.database)
        done = scan(config, machine.directory / "folder", launcher=machine.launcher)
        assert done.returncode == 1
        said = done.stderr.decode().splitlines()
        assert said[0] == "Using the clamd of the service that runs here, in /var/lib/clamav/media-scanner."
        assert said[1].startswith("TEST SIGNATURES: ")
        assert clamds_of(machine.database) == before
        assert not machine.in_tmp()
    assert clamds_of(machine.database) == []


@pytest.mark.real
@needs_root
def test_without_a_service_a_clamd_is_started_for_the_time_and_said_so(machine: Machine) -> None:
    config = configuration(machine.directory, "embedded")
    done = scan(config, machine.directory / "folder", launcher=machine.launcher)
    assert done.returncode == 1
    said = done.stderr.decode().splitlines()
    assert said[0] == "No service with an embedded clamd runs here."
    assert said[1].startswith("Starting a clamd")
    assert clamds_of(machine.database) == []
    assert machine.leftovers() == []


@pytest.mark.real
@needs_root
def test_a_service_that_is_closed_to_us_is_said_to_be_and_left_alone(machine: Machine) -> None:
    config = configuration(machine.directory, "embedded")
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    with service(machine, config):
        before = clamds_of(machine.database)
        done = scan(config, machine.directory / "folder", launcher=[*machine.launcher, *nobody])
        assert (done.returncode, clamds_of(machine.database)) == (1, before)
    said = done.stderr.decode().splitlines()
    assert said[0].startswith("/var/lib/clamav/media-scanner is closed to this user")
    assert said[1].startswith("Starting a clamd")
    assert not machine.in_tmp()


@pytest.mark.real
@needs_root
def test_with_test_signatures_alone_nothing_is_scanned_unless_they_are_accepted(machine: Machine) -> None:
    config = configuration(machine.directory, "embedded", clamav={"accept_test_signatures": False})
    done = scan(config, machine.directory / "folder", launcher=machine.launcher)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "install real ones (freshclam), or set clamav.accept_test_signatures" in done.stderr.decode()


@pytest.mark.real
@needs_root
@pytest.mark.timeout(90)
def test_nothing_is_called_clean_that_a_killed_embedded_clamd_did_not_scan(machine: Machine) -> None:
    folder = machine.directory / "mixed"
    expected = mixed(folder, locked=False)
    config = configuration(machine.directory, "embedded")
    with halted(config, folder, machine.launcher) as process:
        lines = first_lines(process, 20)
        os.kill(embedded_clamd_of(process.pid), signal.SIGKILL)
        found = rest(process, lines)
    check_partial(found, expected)
    assert "not_scanned" in found.values()
    assert process.returncode == 2

    done = scan(config, "--json", folder, launcher=machine.launcher)
    assert results(done.stdout) == expected
    assert done.returncode == 1


@pytest.mark.real
@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_scan_and_the_clamd_that_it_started(machine: Machine, number: int) -> None:
    config = configuration(machine.directory, "embedded")
    arguments = command(config, machine.directory / "folder", "-", launcher=machine.launcher)
    with Popen(
        arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"infected" in process.stdout.readline()  # standard input does not end
        assert len(clamds_of(machine.database)) == 1
        process.send_signal(number)
        said = process.stderr.read().decode().splitlines()
        assert process.wait(10) == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert said[-2] == "Interrupted: not everything was scanned."
        assert said[-1].startswith("files: 1 in ")
        assert machine.leftovers() == []
    wait_until_gone(machine)


@pytest.mark.real
def test_an_interrupted_scan_says_in_json_that_it_is_not_complete(config: Path, folder: Path) -> None:
    (folder / "letter").write_text("a letter")
    arguments = command(config, "--json", folder, "-")
    with Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"letter" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        summary = json.loads(process.stdout.read())["summary"]
    assert (summary["files"], summary["complete"]) == (1, False)
    assert process.returncode == 130


def wait_until_gone(machine: Machine) -> None:
    deadline = time.monotonic() + 5
    while clamds_of(machine.database):
        assert time.monotonic() < deadline
        time.sleep(0.05)
