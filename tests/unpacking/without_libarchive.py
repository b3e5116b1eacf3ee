"""A template on a machine without libarchive."""

from __future__ import annotations

import os

from scanner.unpacking import template

if __name__ == "__main__":
    os.environ["LIBARCHIVE"] = "no-such-library.so"
    template.main()
