"""What is behind a password hides nothing else: a policy may deliver what is encrypted, and no more."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.verdict import Decision, Outcome, Policy, Reason
from tests.archive_fuzz import POLICY
from tests.archive_records import packed, records_of_a_zip
from tests.archives import TEXT, encrypted, extracted, locked, sevenzip_of, tar_of, zip_of
from tests.engines.test_archive import crooked
from tests.judging import judging_bytes
from tests.real_clamd import EICAR, Clamd

MIB = 2**20
LZMA, STORED = 14, 0
DELIVERED = Decision(deliver=True, outcome=Outcome.UNSCANNABLE, reason=Reason.ENCRYPTED_ARCHIVE)


def joined(*archives: bytes) -> bytes:
    """The members of these ZIPs in one, in this order."""
    records, directory, count = b"", b"", 0
    for archive in archives:
        begin = records_of_a_zip(archive)[0][0]
        entries = bytearray(archive[begin : archive.rindex(b"PK\5\6")])
        for place, local in records_of_a_zip(archive):
            entries[place - begin + 42 : place - begin + 46] = struct.pack("<L", len(records) + local)
            count += 1
        records, directory = records + archive[:begin], directory + entries
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(records), 0)
    return records + directory + end


def zstd_zip(name: str, content: bytes) -> bytes:
    """A ZIP by a method that neither clamd nor zipfile knows."""
    archive = bytearray(zip_of({name: packed(content, "zstd")}, STORED))
    ((central, local),) = records_of_a_zip(bytes(archive))
    for crc, method in ((local + 14, local + 8), (central + 16, central + 10)):
        archive[method : method + 2] = struct.pack("<H", 93)
        archive[crc : crc + 4] = struct.pack("<L", zlib.crc32(content))
        archive[crc + 8 : crc + 12] = struct.pack("<L", len(content))
    return bytes(archive)


def pdf_behind_a_password(directory: Path) -> bytes:
    target = directory / "locked.pdf"
    subprocess.run(["qpdf", "--empty", "--encrypt", "user", "owner", "256", "--", target], check=True)
    return target.read_bytes()


def mixed(content: bytes) -> dict[str, bytes]:
    """One file behind a password, and `content` that needs none, in ways in which clamd does not see it."""
    password, aes, sevenzip = (encrypted(TEXT)[kind] for kind in ("zip-password", "zip-aes", "7z-password"))
    lzma = zip_of({"evil": content}, LZMA)
    manifest = {"META-INF/manifest.xml": b"<encryption-data/>"}
    return locked(content) | {
        "lzma behind": joined(password, lzma),
        "lzma before": joined(lzma, password),
        "lzma between": joined(password, lzma, aes),
        "zstd behind": joined(aes, zstd_zip("evil", content)),
        "zstd before": joined(zstd_zip("evil", content), aes),
        "beside it in a tar": tar_of({"a.zip": password, "b.zip": lzma}),
        "beside it in a 7z": sevenzip_of({"a.7z": sevenzip, "b.zip": lzma}),
        "far below": tar_of({"a.tar": tar_of({"a.zip": zip_of({"b.zip": aes, "c.zip": lzma})})}),
        "by two readers": crooked(joined(password, lzma, aes)),
        "in a document": joined(zip_of(manifest), lzma),
    }


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, bytes]]:
    return {"evil": mixed(EICAR + TEXT), "innocent": mixed(b"innocent" + TEXT)}


@pytest.mark.real
@pytest.mark.timeout(120)
async def test_malware_without_a_password_is_found_beside_what_has_one(
    strict_clamd: Clamd, made: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        judged = {kind: (await judge(data)).outcome for kind, data in made["evil"].items()}
    assert judged == dict.fromkeys(made["evil"], Outcome.INFECTED)


@pytest.mark.real
@pytest.mark.timeout(120)
async def test_where_nothing_else_is_wrong_a_policy_may_deliver_it(
    strict_clamd: Clamd, made: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        decisions = {kind: POLICY.decide(await judge(data)) for kind, data in made["innocent"].items()}
    document = decisions.pop("in a document")
    assert decisions == dict.fromkeys(decisions, DELIVERED)
    assert (document.deliver, document.reason) == (True, Reason.ENCRYPTED_DOCUMENT)


@pytest.mark.real
async def test_whatever_else_is_wrong_withholds_it(strict_clamd: Clamd, tmp_path: Path) -> None:
    password = encrypted(TEXT)["zip-password"]
    damaged, unknown = bytearray(zip_of({"b": TEXT}, LZMA)), zip_of({"b": TEXT}).replace(b"\x08\0", b"\x09\0")
    damaged[60] ^= 0xFF
    broken = {
        "damaged": (joined(password, bytes(damaged)), Reason.DAMAGED),
        "a rare method": (joined(password, unknown), Reason.AMBIGUOUS),
        "damaged beside it": (tar_of({"a": password, "b": bytes(damaged)}), Reason.DAMAGED),
        "unknown beside it": (tar_of({"a": password, "b": b"LRZI" + bytes(99)}), Reason.AMBIGUOUS),
    }
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for kind, (data, reason) in broken.items():
            decision = POLICY.decide(await judge(data))
            assert (kind, decision) == (kind, Decision(False, Outcome.UNSCANNABLE, reason))


@pytest.mark.real
async def test_archives_and_documents_are_delivered_together_only_where_both_are(
    strict_clamd: Clamd, tmp_path: Path
) -> None:
    """Whichever of them comes first."""
    archive = encrypted(TEXT)["zip-password"]
    document = zip_of({"META-INF/manifest.xml": b"<encryption-data/>"})
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for files in ({"a": archive, "b": document}, {"a": document, "b": archive}):
            verdict = await judge(tar_of(files))
            assert POLICY.decide(verdict).deliver
            for policy in (Policy(deliver_encrypted_archives=True), Policy(deliver_encrypted_documents=True)):
                assert not policy.decide(verdict).deliver


@pytest.fixture
def narrow_clamd(tmp_path: Path) -> Iterator[Clamd]:
    """It calls over a limit what we do not, and tells the last thing that it did not look into."""
    clamd = Clamd(tmp_path / "clamd", settings="MaxFileSize 1M\nMaxScanSize 4M")
    clamd.start()
    yield clamd
    clamd.stop()


@pytest.mark.real
async def test_an_encrypted_pdf_does_not_hide_what_clamd_did_not_look_into(
    narrow_clamd: Clamd, tmp_path: Path
) -> None:
    large, locked_pdf = bytes(2 * MIB) + EICAR, pdf_behind_a_password(tmp_path)
    archive = zip_of({"large": large, "locked.pdf": locked_pdf})
    assert "Encrypted.PDF" in narrow_clamd.scan(archive)
    async with judging_bytes(narrow_clamd, tmp_path / "state") as judge:
        withheld = POLICY.decide(await judge(archive))
        assert (withheld.deliver, withheld.reason) == (False, Reason.LIMIT)
        assert POLICY.decide(await judge(zip_of({"small": TEXT, "locked.pdf": locked_pdf}))).deliver


@pytest.mark.real
async def test_a_pdf_that_opens_without_a_password_is_not_delivered_as_one_that_does_not(
    strict_clamd: Clamd, tmp_path: Path
) -> None:
    """Clamd decrypts no stream without a filter; whoever opens the file reads it."""
    async with judging_bytes(strict_clamd, tmp_path / "state") as judge:
        documents = {user: with_password(user, tmp_path) for user in ("", "user")}
        judged = {user: POLICY.decide(await judge(document)) for user, document in documents.items()}
    assert judged == {
        "": Decision(deliver=False, outcome=Outcome.UNSCANNABLE, reason=Reason.AMBIGUOUS),
        "user": Decision(deliver=True, outcome=Outcome.UNSCANNABLE, reason=Reason.ENCRYPTED_DOCUMENT),
    }


def with_password(user: str, directory: Path) -> bytes:
    plain, target = directory / "plain.pdf", directory / f"{user}.pdf"
    plain.write_bytes(page_with(b"stream without a filter"))
    options = ["--stream-data=preserve", "--encrypt", user, "owner", "128", "--use-aes=y", "--"]
    subprocess.run(["qpdf", *options, plain, target], check=True)
    return target.read_bytes()


def page_with(content: bytes) -> bytes:
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
    )
    document, places = b"%PDF-1.6\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(document))
        document += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return document + head + table + trailer % (len(objects) + 1, len(document))


def pretending(archive: bytes) -> bytes:
    """A ZIP of one member that says that it is encrypted, and is not."""
    changed = bytearray(archive)
    for central, local in records_of_a_zip(archive):
        changed[central + 8] |= 1
        changed[local + 6] |= 1
    return bytes(changed)


@pytest.mark.real
async def test_what_only_says_that_it_is_encrypted_is_not_delivered(
    strict_clamd: Clamd, tmp_path: Path
) -> None:
    """There are programs that do not look at that flag."""
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for method in (STORED, 8):
            verdict = await judge(pretending(zip_of({"evil": TEXT}, method)))
            assert POLICY.decide(verdict).reason is Reason.AMBIGUOUS


@pytest.mark.slow
def test_the_programs_that_tell_the_truth_know_no_password(made: dict[str, dict[str, bytes]]) -> None:
    """And get everything else."""
    assert {kind for kind, data in made["evil"].items() if extracted(data, EICAR) is None} == set()
    assert {kind for kind, data in locked(b"x").items() if extracted(data, TEXT)} == set()
