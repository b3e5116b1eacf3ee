"""Puts the innocent files where the tests have them: python -m tests.corpus."""

from __future__ import annotations

import sys
from collections import Counter

from tests.corpus.kept import innocents

counts = Counter(path.parent.name for path in innocents())
for kind, count in sorted(counts.items()):
    sys.stdout.write(f"{count:5} {kind}\n")
sys.stdout.write(f"{counts.total():5} files of {len(counts)} types\n")
