"""Deciding that a file is plain costs next to nothing beside what clamd takes for it."""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docx
import pytest
from PIL import Image

from scanner.containers.inspection import Part
from scanner.containers.opening import inspect
from scanner.media import Body, Sample
from tests.bench.signatures import build_database
from tests.compound_files import compound
from tests.fakes import a_body
from tests.real_clamd import Clamd

_MB = 1_000_000
_SHARE = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
# clamd's processor time is counted in hundredths of a second.
_SECONDS_OF_CLAMD, _TRIES = 1.0, 7


def document() -> bytes:
    """A docx of 1 MB: text of random words, and two photographs."""
    chance = random.Random(1)
    words = [
        "".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randrange(2, 11))) for _ in range(3000)
    ]
    made, buffer = docx.Document(), io.BytesIO()
    for number in range(2):
        made.add_picture(io.BytesIO(photograph(number, 800)))
    for _ in range(2000):
        made.add_paragraph(" ".join(chance.choices(words, k=60)))
    made.save(buffer)
    return buffer.getvalue()


def old_document() -> bytes:
    """A doc of 1 MB, in one piece, as Word writes it."""
    text = random.Random(1).choices("abcdefghijklmnop ", k=250_000)
    photos = photograph(1, 700) + photograph(2, 700)
    streams = {"WordDocument": "".join(text).encode("utf-16-le"), "Data": photos, "1Table": bytes(20_000)}
    return compound(streams)


def album() -> bytes:
    """A ZIP of 20 MB of photographs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(100):
            if buffer.tell() < 19.5 * _MB:
                archive.writestr(f"IMG_{number:04}.jpg", photograph(number, 2400))
    return buffer.getvalue()


def photograph(number: int, width: int) -> bytes:
    height, buffer = width * 3 // 4, io.BytesIO()
    small = Image.frombytes("RGB", (80, 60), random.Random(number).randbytes(80 * 60 * 3))
    noise = Image.effect_noise((width, height), 30).convert("RGB")
    Image.blend(small.resize((width, height)), noise, 0.3).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clamd_at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clamd]:
    """With as many signatures as the real database has: with EICAR alone clamd takes a fifth of the time."""
    database = tmp_path_factory.mktemp("signatures")
    build_database(database, 1.0)
    with tempfile.TemporaryDirectory(prefix="clamd-") as home:
        clamd = Clamd(Path(home), database=database)
        clamd.start()
        try:
            yield clamd
        finally:
            clamd.stop()
            shutil.rmtree(database)


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("make", "size"), [(document, _MB), (old_document, _MB), (album, 20 * _MB)])
def test_deciding_plain_costs_a_twentieth_of_what_clamd_takes_at_most(
    clamd_at_work: Clamd, make: Callable[[], bytes], size: int
) -> None:
    content = make()
    assert 0.7 * size < len(content) < 1.3 * size
    ours, clamds = _costs(clamd_at_work, content)
    cost = f"{ours * 1000:.1f} ms beside clamd's {clamds * 1000:.0f} ms"
    assert ours <= _SHARE * clamds, cost
    print(cost)  # noqa: T201 - with pytest -rP


def _costs(clamd: Clamd, content: bytes) -> tuple[float, float]:
    """Seconds of processor time, by turns: ours, the least of some tries, and clamd's for one scan."""
    body, ours, clamds = a_body(content), list[float](), list[float]()
    while sum(clamds) < _SECONDS_OF_CLAMD or len(ours) < _TRIES:
        ours.append(_ours(body))
        began = _processor_time(clamd.pid)
        assert clamd.scan(content).endswith("OK")
        clamds.append(_processor_time(clamd.pid) - began)
    body.release()
    return min(ours), sum(clamds) / len(clamds)


def _ours(body: Body) -> float:
    sample, began = Sample(body), time.thread_time()
    opening = inspect(Part(sample.read, 0, sample.size), 20.0, lambda: False)
    taken = time.thread_time() - began
    assert getattr(opening, "readers", opening) == ()
    return taken


def _processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
