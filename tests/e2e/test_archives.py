"""Archives that clamd does not open: the whole product delivers clean ones, and finds malware in them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import lzma
import secrets
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import tar_of, zip_of
from tests.cli.command import media_scanner_process
from tests.e2e.scene import REFUSED, letter, scene
from tests.engines.test_archive import ar_of, crooked
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

NAME = "a-name-that-is-nobodys-business"


def nested(content: bytes) -> bytes:
    inner = tar_of({f"{NAME}/file": content}, tarfile.PAX_FORMAT)
    return zip_of({f"{NAME}.zip": zip_of({f"{NAME}.tar": inner}, zipfile.ZIP_LZMA)}, zipfile.ZIP_LZMA)


def package(content: bytes) -> bytes:
    """As dpkg-deb writes one."""
    control, data = tar_of({"./control": b"Package: p\n"}), tar_of({f"./usr/bin/{NAME}": content})
    files = {"debian-binary": b"2.0\n", "control.tar.gz": gzip.compress(control)}
    return ar_of(files | {"data.tar.xz": lzma.compress(data)})


def with_a_gap(content: bytes) -> bytes:
    return crooked(zip_of({NAME: content}))


async def test_archives_are_judged_by_what_is_in_them(tmp_path: Path, clamd: Clamd) -> None:
    packs: tuple[Callable[[bytes], bytes], ...] = (nested, package, with_a_gap)
    async with scene(tmp_path, f"unix:{clamd.socket}") as stage:
        stage.secrets.add(NAME)  # it must be nowhere in what the product writes
        await stage.until_ready()
        for pack in packs:
            clean, infected = pack(letter()), pack(letter() + EICAR)
            assert (await stage.download(stage.upload(clean))).body == clean
            assert (await stage.download(stage.upload(infected))).refusal == REFUSED
            assert (await stage.download_encrypted(stage.upload_encrypted(pack(letter())))).status == 200
            reply = await stage.download_encrypted(stage.upload_encrypted(pack(letter() + EICAR)))
            assert reply.refusal == REFUSED
        assert stage.metric("archive_answers_total", answer="unpacked") == 4 * len(packs)
        assert stage.metric("archive_members_total") > 4 * len(packs)
        assert stage.metric("archive_answers_total", answer="unscannable") == 0


async def test_who_has_a_file_scanned_by_the_service_is_told_where_in_it_malware_is(
    tmp_path: Path, clamd: Clamd
) -> None:
    secret, file = tmp_path / "secret", tmp_path / "archive"
    secret.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    secret.chmod(0o600)
    file.write_bytes(with_a_gap(EICAR))
    directory = tmp_path / "product"
    directory.mkdir()
    server = {"inspect_secret_file": str(secret)}
    async with scene(directory, f"unix:{clamd.socket}", server=server) as stage:
        stage.secrets.add(NAME)
        await stage.until_ready()
        words = ("scan", "--remote", stage.product.operations_url, "--secret-file", secret, file)
        first, again = [await asyncio.to_thread(media_scanner_process, *words) for _ in range(2)]
        assert first.stdout == f"{file}: infected Eicar-Test-Signature.UNOFFICIAL in {NAME}\n"
        assert again.stdout == f"{file}: infected Eicar-Test-Signature.UNOFFICIAL\n", "that is not remembered"
