"""The corpus, some hundred files of many types: fetched and written once, then kept beside the sources."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.corpus import fetch, write

FOLDER = Path(__file__).parents[2] / ".corpus"


def innocents() -> list[Path]:
    """Files in folders named after their types."""
    return sorted(path for path in _made().glob("files/*/*") if path.is_file())


def bombs() -> list[Path]:
    """Small files that never end."""
    return sorted(_made().glob("bombs/*"))


def _made() -> Path:
    """The folder of it all, made again when the scripts that make it change."""
    stamp = FOLDER / "made-by"
    scripts = "".join(Path(str(script.__file__)).read_text() for script in (fetch, write))
    digest = hashlib.sha256(scripts.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        write.write(FOLDER)
        fetch.fetch(FOLDER)
        stamp.write_text(digest)
    return FOLDER
