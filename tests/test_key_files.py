from __future__ import annotations

import base64
import json
import multiprocessing
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from scanner.crypto.pk import ServerKeys
from scanner.errors import ConfigError
from scanner.key_files import (
    read_or_generate_secret,
    read_secret,
    read_token,
    retired_secret_files,
    rotate_secret,
    server_keys,
    write_secret,
)
from tests.web.service import seal

SECRET = bytes(range(32))
WRITTEN = base64.b64encode(SECRET)
KEY = "crypto.secret_file"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def problem(act: Callable[[], object]) -> str:
    """The one line that is said, which shows nothing of a secret."""
    with pytest.raises(ConfigError) as refused:
        act()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert len(refused.value.info.splitlines()) == 1
    return refused.value.info


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [WRITTEN, WRITTEN.rstrip(b"="), WRITTEN + b"\n", b"\r\n " + WRITTEN + b" \r\n"]
)
def test_secret_is_read_with_or_without_padding_and_white_space(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert read_secret(file, KEY) == SECRET


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"short",
        WRITTEN[:-4],
        WRITTEN + WRITTEN,
        WRITTEN + b"\n" + WRITTEN,
        WRITTEN[:20] + b"\n" + WRITTEN[20:],
        WRITTEN.replace(b"A", b"*", 1),
        b"\xef\xbb\xbf" + WRITTEN,
        WRITTEN + b"\0",
        SECRET.hex().encode(),
        SECRET,
        b"\xff" * 44,
        b"-----BEGIN PRIVATE KEY-----\n" + WRITTEN + b"\n-----END PRIVATE KEY-----\n",
        b"secret: " + WRITTEN,
    ],
)
def test_malformed_secret_is_one_line_that_does_not_show_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    said = problem(lambda: read_secret(file, KEY))
    assert said == f"{KEY}: {file}: a secret must be 32 bytes in base64"


def test_named_secret_that_is_absent_or_no_file_is_refused_and_never_made(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    said = problem(lambda: read_or_generate_secret(absent, tmp_path / "default", KEY))
    assert said == f"{KEY}: {absent}: No such file or directory"
    assert problem(lambda: read_secret(tmp_path, KEY)) == f"{KEY}: {tmp_path}: Is a directory"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(5)
def test_device_without_end_and_pipe_without_writer_are_one_line(tmp_path: Path) -> None:
    zero, fifo, large = Path("/dev/zero"), tmp_path / "fifo", tmp_path / "large"
    os.mkfifo(fifo)
    large.write_bytes(bytes(64 * 1024 + 1))
    for read in (read_secret, read_token):
        assert problem(partial(read, zero, KEY)) == f"{KEY}: {zero}: is no regular file"
        assert problem(partial(read, fifo, KEY)) == f"{KEY}: {fifo}: is no regular file"
        assert problem(partial(read, large, KEY)) == f"{KEY}: {large}: is too large"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_secret_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(WRITTEN)
    file.chmod(0)
    assert problem(lambda: read_secret(file, KEY)) == f"{KEY}: {file}: Permission denied"


def test_named_secret_is_used_and_none_is_made(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(WRITTEN)
    assert read_or_generate_secret(file, tmp_path / "state" / "default", KEY) == SECRET
    assert not (tmp_path / "state").exists()


# -- generating ----------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_generated_secret_is_readable_by_its_owner_alone(tmp_path: Path, umask: int) -> None:
    file = tmp_path / "state" / "secret"
    before = os.umask(0o022)
    try:
        file.parent.mkdir(mode=0o755)
        os.umask(umask)
        secret = read_or_generate_secret(None, file, KEY)
    finally:
        os.umask(before)
    assert mode(file) in (0o600, 0o600 & ~umask)
    assert len(secret) == 32
    assert base64.b64decode(file.read_bytes()) == secret


def test_folder_that_is_made_for_it_is_its_owners_alone(tmp_path: Path) -> None:
    read_or_generate_secret(None, tmp_path / "state" / "secret", KEY)
    assert mode(tmp_path / "state") == 0o700


def test_generated_secret_stays(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    first = read_or_generate_secret(None, file, KEY)
    assert read_or_generate_secret(None, file, KEY) == first
    assert read_or_generate_secret(None, tmp_path / "other", KEY) != first
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "other"}


@pytest.mark.parametrize("content", [b"", b"damaged", WRITTEN])
def test_secret_is_never_overwritten_whatever_is_in_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(FileExistsError):
        write_secret(file)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_damaged_generated_secret_is_refused_and_not_replaced(tmp_path: Path) -> None:
    """A new one would lock out all clients that know the old."""
    file = tmp_path / "secret"
    file.write_bytes(b"damaged")
    said = problem(lambda: read_or_generate_secret(None, file, KEY))
    assert said == f"state_dir: {file}: a secret must be 32 bytes in base64"


def test_link_to_nowhere_is_not_followed(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.symlink_to(tmp_path / "elsewhere")
    problem(lambda: read_or_generate_secret(None, file, KEY))
    assert not (tmp_path / "elsewhere").exists()


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = problem(lambda: read_or_generate_secret(None, tmp_path / "file" / "sub" / "secret", KEY))
    assert said == f"state_dir: {tmp_path}/file/sub/secret: Not a directory"
    problem(lambda: read_or_generate_secret(None, tmp_path / "file" / "secret", KEY))


def test_draft_that_a_killed_process_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """In a container the next process has the same ID."""
    (tmp_path / f".secret.{os.getpid()}.tmp").touch()
    assert len(read_or_generate_secret(None, tmp_path / "secret", KEY)) == 32


def test_threads_that_generate_at_once_get_one_secret(tmp_path: Path) -> None:
    barrier, secrets = threading.Barrier(8), []

    def generate() -> None:
        barrier.wait()
        secrets.append(read_or_generate_secret(None, tmp_path / "secret", KEY))

    threads = [threading.Thread(target=generate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(secrets), len(set(secrets))) == (8, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def generate(file: Path, start: Barrier, secrets: multiprocessing.Queue[bytes]) -> None:
    start.wait()
    secrets.put(read_or_generate_secret(None, file, KEY))


@pytest.mark.slow
def test_processes_that_generate_at_once_get_one_secret(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, secrets = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=generate, args=(tmp_path / "secret", start, secrets)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = {secrets.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


# -- rotating ------------------------------------------------------------------------------------

TIME = r"\.retired-\d{8}T\d{6}Z"


def test_rotated_secret_is_a_new_one_and_the_old_one_still_opens(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(WRITTEN)
    file.chmod(0o640)
    retired = rotate_secret(file)
    assert re.fullmatch(f"secret{TIME}", retired.name)
    assert retired.read_bytes() == WRITTEN
    assert read_secret(file, KEY) != SECRET
    assert mode(file) == mode(retired) == 0o640
    assert retired_secret_files(file) == [retired]
    assert {path.name for path in tmp_path.iterdir()} == {"secret", retired.name}
    assert server_keys(file, file, ()).public_key == ServerKeys(read_secret(file, KEY)).public_key
    assert server_keys(None, file, ()).open(sealed_to(SECRET)) == b"{}"


def sealed_to(secret: bytes) -> object:
    return json.loads(seal(b"{}", ServerKeys(secret).public_key))["encrypted_body"]


def test_other_files_beside_it_are_no_retired_secrets(tmp_path: Path) -> None:
    file = tmp_path / "a[b]*"
    for name in ("ab*.retired-x", "a[b]*.retired", "other.retired-x", ".a[b]*.retired-x"):
        (tmp_path / name).touch()
    (tmp_path / "a[b]*.retired-x").touch()
    assert [path.name for path in retired_secret_files(file)] == ["a[b]*.retired-x"]
    assert retired_secret_files(tmp_path / "absent" / "secret") == []


def test_retired_secret_that_is_damaged_is_refused(tmp_path: Path) -> None:
    file, retired = tmp_path / "secret", tmp_path / "secret.retired-x"
    file.write_bytes(WRITTEN)
    retired.write_bytes(b"damaged")
    said = problem(lambda: server_keys(file, file, ()))
    assert said == f"{KEY}: {retired}: a secret must be 32 bytes in base64"


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_rotated_by_root_the_secret_stays_the_services(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(WRITTEN)
    os.chown(file, 65534, 65534)
    retired = rotate_secret(file)
    for path in (file, retired):
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_nothing_is_rotated_over_another_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(WRITTEN)
    with suppress(FileExistsError):
        for _ in range(100):  # several within one second
            rotate_secret(file)
    secrets = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(secrets) == len(list(tmp_path.iterdir()))
    assert WRITTEN in secrets


@pytest.mark.parametrize("step", ["chown", "link", "fsync", "replace"])
def test_rotation_that_breaks_off_leaves_the_old_secret_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(WRITTEN)

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    write_secret(tmp_path / "unused")  # what it needs is not what fails
    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(Path, step, fail)
        else:
            patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            rotate_secret(file)
    assert read_secret(file, KEY) == SECRET
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert server_keys(file, file, ()).open(sealed_to(SECRET)) == b"{}"


def rotate(file: Path, start: Barrier, done: multiprocessing.Queue[bool]) -> None:
    start.wait()
    for _ in range(20):
        try:
            rotate_secret(file)
        except FileExistsError:
            done.put(False)
        else:
            done.put(True)


@pytest.mark.slow
def test_rotations_at_once_lose_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(WRITTEN)
    context = multiprocessing.get_context("spawn")
    start, done = context.Barrier(4), context.Queue()
    processes = [context.Process(target=rotate, args=(file, start, done)) for _ in range(4)]
    for process in processes:
        process.start()
    rotated = sum(done.get(timeout=30) for _ in range(80))
    for process in processes:
        process.join()
    secrets = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(secrets) == len(set(secrets)) == rotated + 1


@pytest.mark.parametrize("content", [b"syt_token", b"  syt_token\n"])
def test_token_is_read_without_white_space_around_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    assert read_token(file, "a.key") == "syt_token"


@pytest.mark.parametrize("content", [b"", b" \n", b"syt token", b"syt_\xe9", b"syt\x00token", b"a\nb"])
def test_file_that_holds_no_token_is_one_line_that_does_not_show_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as problem:
        read_token(file, "a.key")
    assert problem.value.info == f"a.key: {file}: holds no access token"


def test_token_file_that_is_absent_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a.key: .*token: No such file or directory"):
        read_token(tmp_path / "token", "a.key")
