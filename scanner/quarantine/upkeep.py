"""What is deleted when: pure plans, made before anything is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from scanner.quarantine.catalogue import Content


@dataclass(frozen=True, slots=True)
class Plan:
    """Names of samples and detection records. `held` counts contents that are left for that alone."""

    contents: tuple[Content, ...]
    samples: tuple[str, ...]
    records: tuple[str, ...]
    held: int

    @property
    def size(self) -> int:
        """Bytes of the samples."""
        chosen = set(self.samples)
        return sum(each.size for content in self.contents for each in content.samples if each.key in chosen)

    @property
    def gone(self) -> list[str]:
        """SHA-256 of the contents of which neither a sample nor a record is left then."""
        chosen = {*self.samples, *self.records}
        return [content.sha256 for content in self.contents if content.sha256 and chosen >= _names(content)]


def _names(content: Content) -> set[str]:
    return {entry.key for entry in content.entries} | {sample.key for sample in content.samples}


def purge_plan(contents: Iterable[Content], before: datetime) -> Plan:
    """Records from before, and samples that were stored and last seen before; nothing of what is held."""
    held, samples, records, touched = 0, list[str](), list[str](), list[Content]()
    for content in contents:
        old_records = [entry.key for entry in content.entries if entry.at < before]
        old_samples = [each.key for each in content.samples if each.stored < before.timestamp()]
        if content.seen >= before:
            old_samples = []
        if not old_records and not old_samples:
            continue
        if content.held:
            held += 1
            continue
        touched.append(content)
        records += old_records
        samples += old_samples
    return Plan(tuple(touched), tuple(samples), tuple(records), held)
