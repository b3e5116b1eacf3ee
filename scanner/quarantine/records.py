"""Detection records: what the SOC finds beside a sealed sample. No key, no token, no file name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

VERSION = 1
# A record stays under 2 KB whatever a database or a client brings.
_MOST_SIGNATURES = 5
_LONGEST = 160
_LARGEST = 2**53
_TEXTS = ("at", "sha256", "sha1", "md5", "mime_type", "verdict", "source", "request_id")
_OPTIONAL = ("media", "ciphertext_sha256", "sample", "missing", "replica", "noted_since")


@dataclass(frozen=True, slots=True)
class DetectionRecord:
    """One detection. `at` is RFC 3339 in UTC, `sample` the name of the sealed sample, if there is one.

    `missing` says why there is none: `hash_only`, or what went wrong. `replica` notes deliveries, since
    `noted_since` (RFC 3339 in UTC; None: not before `at`); if it gave the content to anybody, a record of
    deliveries says so, soon after.
    """

    at: str
    sha256: str
    sha1: str
    md5: str
    size: int | None
    mime_type: str
    verdict: str
    signatures: tuple[str, ...]
    engines: Mapping[str, str]
    media: str | None
    source: str
    encrypted: bool
    ciphertext_sha256: str | None
    request_id: str
    sample: str | None
    missing: str | None = None
    replica: str | None = None
    noted_since: str | None = None
    version: int = field(default=VERSION)

    def to_json(self) -> bytes:
        """`from_json` reads it back."""
        content = asdict(self)
        content["signatures"] = [name[:_LONGEST] for name in self.signatures[:_MOST_SIGNATURES]]
        content["engines"] = {name: version[:_LONGEST] for name, version in self.engines.items()}
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError on what is no record of this version; whoever may write here is not trusted."""
        try:
            content: dict[str, Any] = json.loads(data)
            if content["version"] != VERSION:
                raise ValueError(f"a record of version {content['version']!r}")
            content["signatures"] = tuple(content["signatures"])
            record = cls(**content)
        except (KeyError, TypeError, RecursionError) as problem:
            raise ValueError("no detection record") from problem
        if not record._has_its_types():
            raise ValueError("no detection record")
        return record

    def _has_its_types(self) -> bool:
        texts = [getattr(self, name) for name in _TEXTS]
        texts += [getattr(self, name) for name in _OPTIONAL if getattr(self, name) is not None]
        texts += self.signatures
        texts += [*self.engines, *self.engines.values()] if isinstance(self.engines, dict) else [None]
        size_fits = self.size is None or (type(self.size) is int and 0 <= self.size < _LARGEST)
        return all(isinstance(text, str) for text in texts) and size_fits and isinstance(self.encrypted, bool)
