"""What Alice shares with Bob, and what must become of it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import docx
import pyzipper

from tests.e2e import samples

_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@dataclass(frozen=True)
class SharedFile:
    """A file; the homeserver alone delivers each, the scanner only what is not `withheld`.

    `arrival` is what that means for a user of the homeserver alone.
    """

    title: str
    name: str
    content_type: str
    content: bytes
    encrypted: bool
    arrival: str = "arrives"
    withheld: bool = False

    @property
    def detail(self) -> str:
        """Name and size."""
        size = len(self.content)
        return f"{self.name}, {size} B" if size < 1000 else f"{self.name}, {size / 1000:.0f} kB"


def shared_files() -> list[SharedFile]:
    """All of them, in the order in which they are sent."""
    return [*_harmless(), *_harmful()]


def _harmless() -> list[SharedFile]:
    return [
        SharedFile("picture", "holiday.png", "image/png", samples.png(), encrypted=False),
        SharedFile("document", "minutes.docx", _DOCX, _document(), encrypted=False),
        SharedFile("encrypted picture", "secret.png", "image/png", samples.png(), encrypted=True),
    ]


def _harmful() -> list[SharedFile]:
    eicar = samples.eicar()
    return [
        _infected("EICAR", "eicar.com", "text/plain", eicar, encrypted=False),
        _infected("encrypted EICAR", "tool.com", "text/plain", eicar, encrypted=True),
        _infected("EICAR in a zip", "invoice.zip", "application/zip", samples.infected_zip(), encrypted=True),
        SharedFile(
            "zip with a password",
            "private.zip",
            "application/zip",
            _locked_zip(),
            encrypted=True,
            arrival="arrives unseen",
            withheld=True,
        ),
    ]


def _infected(title: str, name: str, content_type: str, content: bytes, *, encrypted: bool) -> SharedFile:
    return SharedFile(title, name, content_type, content, encrypted, "EICAR arrives", withheld=True)


def _document() -> bytes:
    document, file = docx.Document(), io.BytesIO()
    document.add_heading("Minutes of the meeting")
    document.add_paragraph(samples.text().decode())
    document.save(file)
    return file.getvalue()


def _locked_zip() -> bytes:
    file = io.BytesIO()
    with pyzipper.AESZipFile(file, "w", encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(b"open sesame")
        archive.writestr("letter.txt", samples.text())
    return file.getvalue()
