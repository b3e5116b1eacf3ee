"""`media-scanner quarantine show`: all that is known of one content, and who was given it before."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table

from scanner.cli.option_groups import grouped
from scanner.cli.quarantine_export import KeyFiles, private_keys
from scanner.cli.quarantine_found import Name, content_named
from scanner.cli.quarantine_output import console, document, progress, safe, tell_json, words
from scanner.cli.quarantine_store import Place
from scanner.cli.scan_output import note
from scanner.cli.statements import REFUSED
from scanner.errors import EnvelopeError
from scanner.ports import Store
from scanner.quarantine.catalogue import Content, Entry
from scanner.quarantine.delivery_records import Delivery, DeliveryRecord, Witness, opened
from scanner.quarantine.layout import deliveries_of, replica_of
from scanner.quarantine.markers import Marker
from scanner.quarantine.reading import read_catalogue

# Ours are under 3 MB: what is much larger is nothing of ours, and is not fetched.
_LARGEST_DELIVERIES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Known:
    """A content, who was given it by which replica; `silent` gave it to nobody, `closed` were not read."""

    content: Content
    delivered: Sequence[DeliveryRecord]
    silent: Sequence[Witness]
    closed: int


@grouped
def show(
    name: Name,
    place: Place,
    key_files: KeyFiles = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show all that is known of one content.

    It is named by its SHA-256 or by the ID of a detection record, or by 8 digits or more of their beginning.
    With the SOC's key it also shows to whom the content was handed over before it was detected.

    Exits with 1 where there is no such content.
    """
    known = uvloop.run(_known(place, name, private_keys(key_files)))
    if as_json:
        tell_json(_document(known))
        return
    console().print(_facts(known))
    if known.content.entries:
        console().print("", _detections(known.content.entries), sep="\n")
    for record in known.delivered:
        console().print("", _deliveries(record), sep="\n")
    for witness in known.silent:
        console().print("", _handed_over(witness), sep="\n")
    if known.closed:
        note(f"Records of who was given it before, which --key-file would open: {known.closed}")


async def _known(place: Place, name: str, keys: Sequence[bytes]) -> Known:
    async with place.opened() as store:
        with progress("Reading records") as seen:
            catalogue = await read_catalogue(store, place.rules(), progress=seen)
        content = content_named(catalogue.contents, name)
        envelopes = await _sealed_deliveries(store, content.sha256)
    records = [_opened(envelope, keys, content.sha256) for envelope in envelopes.values()]
    delivered = [record for record in records if record is not None]
    return Known(content, delivered, _silent(content, envelopes), len(records) - len(delivered))


async def _sealed_deliveries(store: Store, sha256: str) -> dict[str, bytes]:
    """By replica."""
    if not sha256:
        return {}
    keys = [stored.key async for stored in store.listing(deliveries_of(sha256))]
    return {replica_of(key): await store.get(key, _LARGEST_DELIVERIES) or b"" for key in keys}


def _silent(content: Content, told: Container[str]) -> list[Witness]:
    """Replicas that took note of deliveries before one of the detections, and tell of none."""
    witnesses: dict[str, Witness] = {}
    for record in (entry.record for entry in content.entries if content.sha256):
        if record.replica is not None and record.replica not in told:
            witnesses.setdefault(record.replica, Witness(record.replica, record.noted_since))
    return list(witnesses.values())


def _opened(envelope: bytes, keys: Sequence[bytes], sha256: str) -> DeliveryRecord | None:
    try:
        return opened(envelope, keys, sha256)
    except (EnvelopeError, ValueError):
        return None


def _document(known: Known) -> dict[str, Any]:
    content = known.content
    return {
        **document(content),
        "records": [{"id": entry.id, "key": entry.key, **asdict(entry.record)} for entry in content.entries],
        "samples": [asdict(sample) for sample in content.samples],
        "markers": [_marked(marker) for marker in content.markers],
        "delivered": [asdict(record) for record in known.delivered],
        "delivered_unread": known.closed,
        "delivered_to_nobody": [asdict(witness) for witness in known.silent],
    }


def _marked(marker: Marker) -> dict[str, object]:
    """What it says and who says so; `standing` is null where nobody checks signatures."""
    said = marker.said
    return {
        "key": marker.key,
        "what": said.action if said else "-",
        "at": datetime.fromtimestamp(said.issued, UTC).isoformat() if said else "-",
        "by": said.author if said else "-",
        "reason": said.reason if said else "-",
        "counts": marker.counts,
        "standing": marker.standing,
    }


def _facts(known: Known) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    content, last = known.content, known.content.last
    table.add_row("SHA-256", content.sha256 or "-")
    if last:
        table.add_row("SHA-1", safe(last.sha1))
        table.add_row("MD5", safe(last.md5))
        table.add_row("type", safe(last.mime_type))
        table.add_row("size", f"{last.size} bytes" if last.size is not None else "-")
        table.add_row("signatures", safe(" ".join(content.signatures)))
        engines = ", ".join(f"{name} {version}" for name, version in last.engines.items())
        table.add_row("engines", safe(engines))
    table.add_row("state", words(content.state))
    for sample in content.samples:
        at = datetime.fromtimestamp(sample.stored, UTC)
        table.add_row("sample", sample.key)
        table.add_row("", f"{sample.size} bytes, {at:%Y-%m-%d %H:%M:%S}, sealed to {sample.recipients}")
    for marker in content.markers:
        shown = _marked(marker)
        mark = f"{shown['what']}, {shown['at']}, by {shown['by']}: {shown['reason']}{_why(marker)}"
        table.add_row("marked" if marker.counts else "ignored", safe(mark))
    return table


def _why(marker: Marker) -> str:
    if marker.standing is None:
        return " (signature not checked: no quarantine.analysts)"
    return "" if marker.counts else f" (it {REFUSED[marker.standing]})"


def _detections(entries: Iterable[Entry]) -> Table:
    table = _lines("DETECTED (UTC)", "SOURCE", "MEDIA, REQUEST, RECORD")
    for entry in entries:
        record = entry.record
        room = " (encrypted)" if record.encrypted else ""
        what = safe(f"{record.media or '-'}{room}").append("\n").append_text(safe(record.request_id))
        table.add_row(
            f"{entry.at:%Y-%m-%d %H:%M:%S}", safe(record.source), what.append(f"\n{entry.id}", "dim")
        )
    return table


def _deliveries(record: DeliveryRecord) -> Table:
    table = _handed_over(Witness(record.replica, record.since), record.deliveries)
    if record.omitted:
        table.add_row("...", str(record.omitted), "more that did not fit in")
    return table


def _handed_over(witness: Witness, deliveries: Sequence[Delivery] = ()) -> Table:
    since = f" since {witness.since}" if witness.since else ""
    table = _lines("HANDED OVER (UTC)", "TIMES", f"MEDIA, CALLER; BY {witness.replica}{since}")
    for delivery in deliveries:
        what = safe(delivery.media).append("\n").append_text(safe(delivery.caller))
        table.add_row(_span(delivery), str(delivery.count), what)
    if not deliveries:
        table.add_row("never", "0", "-")
    return table


def _span(delivery: Delivery) -> str:
    """First and last time, from a record that is the SOC's to read but a replica's to write."""
    try:
        first, last = (datetime.fromtimestamp(at, UTC) for at in (delivery.first, delivery.last))
    except (ValueError, OverflowError, OSError):
        return "-"
    return f"{first:%Y-%m-%d %H:%M:%S}\n{last:%Y-%m-%d %H:%M:%S}"


def _lines(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(safe(names[-1]), overflow="fold")
    return table
