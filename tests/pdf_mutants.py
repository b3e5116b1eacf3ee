"""PDFs with something wrong in how a file is attached, and what programs save of it."""

from __future__ import annotations

import base64
import random
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.archives import zip_of

_TIMEOUT = 20
_GAPS = (
    *(b"\n", b"\r", b"\t", b"\0", b"\f", b"\v", b"  ", b"%x\n", b"%\r", b"% endobj\n", b"%9 0 obj\n"),
    *(b" " * 70, b"%" + b"y" * 300 + b"\n", b"%" + b"z" * 5000 + b"\r"),
)
# In a dictionary where nobody expects them.
_ODD = (
    *(b"/X (endobj)", b"/X (stream\n)", b"/X (\n99 0 obj\n<< /A 1 >>)", b"endobj 99 0 obj", b"/X (()())"),
    *(b"/X << /Filter /FlateDecode >>", b"/Filter /FlateDecode", b"% x\n", b"/Length 3", b"/F (x)", b"/X ["),
    *(b"/X (\\()", b"/X (a", b"/Y <41", b"99 0 obj <<", b"/DecodeParms null", b"null", b"/FFilter /Crypt"),
    *(b"/Subtype /application#2Foctet-stream", b"/X (endstream endobj)", b"/First 5", b"/N 1", b"/W [1 2 1]"),
    *(b"/Type /XRef", b"/Type /ObjStm", b"/X /Encrypt", b"/DecodeParms << /Predictor 1 >>", b"stream\n"),
)
_BETWEEN = (b"99 0 obj ", b"stream\n", b"endstream\n", b"(", b"<<", b"% ", b"98 0 obj << /A (", b"endobj\n")
_PAGES = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
_PAGE = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] >>"
_IN_STREAMS, _REFERENCES = 21, 22


def mutant(seed: str, malware: bytes) -> bytes:
    """A PDF with an archive attached that clamd does not open, or one that it does; in it lies `malware`."""
    rng = random.Random(seed)
    method = rng.choice((zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED))
    return _Writer(rng).written(zip_of({"a": malware}, method))


def saved(data: bytes, wanted: bytes) -> str | None:
    """The program that saves an attached file which has `wanted` in it."""
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name) / "a.pdf", Path(name) / "out"
        source.write_bytes(data)
        out.mkdir()
        _run("pdfdetach", "-saveall", "-o", str(out), str(source))
        if any(wanted in found.read_bytes() for found in out.iterdir()):
            return "pdfdetach"
        return "qpdf" if wanted in _run("qpdf", str(source), "--show-attachment=a.zip") else None


def _run(*command: str) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False).stdout
    except subprocess.TimeoutExpired:
        return b""


def _deflated_twice(data: bytes) -> bytes:
    return zlib.compress(zlib.compress(data))


_FILTERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"/FlateDecode": zlib.compress,
    b"/ASCIIHexDecode": lambda data: data.hex().encode() + b">",
    b"/ASCII85Decode": lambda data: base64.a85encode(data) + b"~>",
    b"[ /FlateDecode /FlateDecode ]": _deflated_twice,
    b"null": bytes,
}


class _Writer:
    """Writes one PDF; whatever may be written otherwise is, now and then."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._content = b"%PDF-1.7\n"
        self._places: dict[int, int] = {}

    def written(self, attached: bytes) -> bytes:
        objects = self._objects(attached)
        inside = [n for n in objects if n != 4 and self._chance(0.8)] if self._chance(0.45) else []
        if self._chance(0.05):
            self._content = self._rng.choice((b"%XDF-1.7\n", b"%PDF 1.7\n", b"junk " * 300, b"\n%PDF-1.7\n"))
        if self._chance(0.08):
            self._content += b"4 0 obj\n<< /Length 5 >>\nstream\nhello\nendstream\nendobj\n"
        outside = [number for number in objects if number not in inside]
        self._rng.shuffle(outside)
        for number in outside:
            self._put(number, objects[number])
        self._end({number: objects[number] for number in inside})
        return self._content.replace(b"startxref", b"startxre") if self._chance(0.08) else self._content

    # -- what is written otherwise now and then ----------------------------------------------------

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _gap(self, usual: bytes = b" ") -> bytes:
        return self._rng.choice(_GAPS) if self._chance(0.05) else usual

    def _name(self, name: bytes) -> bytes:
        if self._chance(0.02):
            return b"/" + name + b"#00"
        escaped = self._chance(0.02)
        return b"/" + b"".join(b"#%02X" % c if escaped and self._chance(0.3) else bytes([c]) for c in name)

    def _number(self, number: int) -> bytes:
        odd = (b"+%d", b"0%d", b"%d.0", b"00000000000%d", b"-%d")
        return (self._rng.choice(odd) if self._chance(0.04) else b"%d") % number

    def _reference(self, number: int) -> bytes:
        end = b"" if self._chance(0.02) else self._gap()
        return self._number(number) + self._gap() + self._number(0) + end + b"R"

    def _aside(self, objects: dict[int, bytes], number: int, value: bytes, probability: float) -> bytes:
        """The value, or a reference to it."""
        if not self._chance(probability):
            return value
        objects[number] = value
        return self._reference(number)

    # -- objects -----------------------------------------------------------------------------------

    def _objects(self, attached: bytes) -> dict[int, bytes]:
        objects = {2: _PAGES, 3: _PAGE}
        objects[4] = self._stream(attached)
        target = 4
        if self._chance(0.05):
            objects[14], target = self._reference(4), 14
        keys = self._rng.choice(([b"F"], [b"F"], [b"UF"], [b"F", b"UF"], [b"DOS"], [b"Unix"], [b"Foo"]))
        files = b" ".join(self._name(key) + self._gap() + self._reference(target) for key in keys)
        files = self._aside(objects, 7, self._gap(b"") + b"<< " + files + b" >>", 0.25)
        said = b"<< /Type /Filespec /F (a.zip) /UF (a.zip) " + self._name(b"EF") + self._gap() + files + b">>"
        names = b"<< /Names [(a.zip) " + self._aside(objects, 5, said, 0.5) + b"] >>"
        tree = self._aside(objects, 6, names, 0.5)
        objects[1] = b"<< /Type /Catalog /Pages 2 0 R /Names << /EmbeddedFiles " + tree + b" >> >>"
        return objects

    def _stream(self, content: bytes) -> bytes:
        packed = b"/FlateDecode" if self._chance(0.6) else self._rng.choice(list(_FILTERS))
        data = _FILTERS[packed](content)
        wrong = self._rng.choice((-3, 3, -len(data), 10**6)) if self._chance(0.15) else 0
        parts = [self._name(b"Length") + self._gap() + b"%d" % (len(data) + wrong)]
        parts += [self._name(b"Filter") + self._gap() + packed] if packed != b"null" else []
        parts += self._rng.sample(_ODD, self._rng.choice((0, 0, 0, 1, 2)))
        self._rng.shuffle(parts)
        begins = (b"stream\r\n", b"stream\r", b"stream \n", b"stream", b"stream%c\n", b" stream \r\n")
        begin = self._rng.choice(begins) if self._chance(0.25) else b"stream\n"
        ends = (b"endstream", b"", b"\nendstrea", b"\r\nendstream")
        end = self._rng.choice(ends) if self._chance(0.25) else b"\nendstream"
        return self._gap(b"") + b"<<" + b" ".join(parts) + b">>" + self._gap(b"\n") + begin + data + end

    def _put(self, number: int, body: bytes) -> None:
        if self._chance(0.03):
            self._content += self._rng.choice(_BETWEEN)
        self._content += b"\n"
        self._places[number] = len(self._content)
        header = self._number(number) + self._gap() + self._number(0) + self._gap() + b"obj"
        end = self._rng.choice((b"\n", b"endobj")) if self._chance(0.1) else b"\nendobj\n"
        self._content += header + self._rng.choice((b"\n", b" ", b"\r\n", b"")) + body + end

    # -- the end -----------------------------------------------------------------------------------

    def _end(self, inside: dict[int, bytes]) -> None:
        if inside:
            self._put(_IN_STREAMS, self._object_stream(inside))
            self._put_reference_stream(list(inside))
            return
        table = len(self._content)
        rows = (
            b"%010d 00000 n \n" % self._places[n] if n in self._places else b"0000000000 65535 f \n"
            for n in range(_REFERENCES)
        )
        self._content += b"xref\n0 %d\n%b" % (_REFERENCES, b"".join(rows))
        end = (_REFERENCES, table)
        self._content += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % end

    def _object_stream(self, objects: dict[int, bytes]) -> bytes:
        places, content = list[bytes](), b""
        for number, body in objects.items():
            places.append(b"%d %d" % (number, len(content)))
            content += body + b"\n"
        head = b" ".join(places) + b"\n"
        packed = b"/FlateDecode" if self._chance(0.9) else self._rng.choice(list(_FILTERS))
        data = _FILTERS[packed](head + content)
        parts = [b"/Type /ObjStm", self._name(b"N") + self._gap() + b"%d" % len(places)]
        parts += [self._name(b"First") + self._gap() + self._number(len(head))]
        parts += [b"/Length %d" % len(data), self._name(b"Filter") + self._gap() + packed]
        parts += self._rng.sample(_ODD, 1) if self._chance(0.2) else []
        self._rng.shuffle(parts)
        return b"<<" + b" ".join(parts) + b">>stream\n" + data + b"\nendstream"

    def _put_reference_stream(self, inside: list[int]) -> None:
        begin = len(self._content) + 1
        rows = {0: (0, 0, 65535)} | {n: (1, place, 0) for n, place in self._places.items()}
        rows |= {n: (2, _IN_STREAMS, index) for index, n in enumerate(inside)}
        rows[_REFERENCES] = (1, begin, 0)
        table = b"".join(
            bytes([kind]) + place.to_bytes(4, "big") + index.to_bytes(2, "big")
            for kind, place, index in (rows.get(n, (0, 0, 0)) for n in range(_REFERENCES + 1))
        )
        said = b"<< /Type /XRef /Size %d /W [1 4 2] /Root 1 0 R /Length %d >>" % (_REFERENCES + 1, len(table))
        self._content += b"\n%d 0 obj\n%b\nstream\n%b\nendstream\nendobj\n" % (_REFERENCES, said, table)
        self._content += b"startxref\n%d\n%%%%EOF\n" % begin
