"""Which libarchive this machine has, told without loading it: that is for processes with nothing to lose."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

LIBRARY = "libarchive.so.13"
# Where the dynamic linker looks for it: `ldconfig` writes it after every installation and update.
_LINKER_CACHE = Path("/etc/ld.so.cache")
_PATH = re.compile(rb"/[^\0]*/%b(?=\0)" % re.escape(LIBRARY.encode()))


@cache
def library_digest(linker_cache: Path = _LINKER_CACHE) -> str:
    """Of its content, at the first call: nothing loads an older one later. There need not be one.

    Its version would not do: a security update of a distribution leaves it as it is.
    """
    digest = hashlib.sha256()
    with suppress(OSError):
        for path in sorted(set(_PATH.findall(linker_cache.read_bytes()))):
            digest.update(Path(os.fsdecode(path)).read_bytes())
    return digest.hexdigest()[:16]
