"""What every EventSink keeps to; a test class of its own inherits this, with a fixture `sink`."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, get_args

import pytest

from scanner.events import Event, Occasion, Source
from scanner.media import MediaRef
from scanner.ports import EventSink
from scanner.verdict import (
    ContentId,
    Decision,
    Detection,
    Hashes,
    Outcome,
    Override,
    Reason,
    Report,
    Verdict,
)

KINDS: tuple[type, ...] = get_args(Event)
# What peers, engines and stores bring: a text of any length with anything in it.
TEXTS = ("", "\x1b[2J\n\0", "\ud800", "\N{RIGHT-TO-LEFT OVERRIDE}", 'a"b\\', "x" * 100_000)
_REF = MediaRef("example.org", "abc")
_OCCASIONS = (
    Occasion(_REF, Source.DOWNLOAD, encrypted=True, request_id="1"),
    Occasion(None, Source.UPLOAD, encrypted=False, request_id=""),
)


def made(kind: type, text: str, occasion: Occasion) -> Any:
    """An event of this kind, whose texts are all `text`."""
    found = Report("clamav", Outcome.INFECTED, text, Reason.MALWARE, (Detection(text),))
    whole = occasion.ref is not None
    values = {
        "allow": True,
        "caller": b"caller",
        "changed": (text,),
        "code": 404 if kind.__name__ == "Answered" else text,
        "content": ContentId(bytes(32)),
        "decision": Decision(deliver=False, outcome=Outcome.INFECTED, reason=Reason.MALWARE),
        "encrypted": True,
        "members": 3,
        "new": True,
        "number": 7,
        "occasion": occasion,
        "outcome": Outcome.FAILED,
        "override": Override(allow=True, reason=text, author=text, expires=1e12),
        "passed": None,
        "pending": (text,),
        "ref": occasion.ref,
        "seconds": 0.5,
        "size": 10,
        "source": occasion.source,
        "verdict": Verdict((found,), 1.5, text, Hashes("ab" * 32, "cd" * 20, "ef" * 16) if whole else None),
    }
    return kind(**{field.name: values.get(field.name, text) for field in dataclasses.fields(kind)})


class EventSinkContract:
    """Inherit and be called Test...; every test gets a fresh `sink`."""

    @pytest.mark.parametrize("kind", KINDS)
    async def test_whatever_happened_is_taken_note_of(self, sink: EventSink, kind: type) -> None:
        for text in TEXTS:
            for occasion in _OCCASIONS:
                sink(made(kind, text, occasion))

    async def test_nobody_waits_for_it(self, sink: EventSink) -> None:
        """Even a flood of everything there is."""
        events = [made(kind, "text", _OCCASIONS[0]) for kind in KINDS] * 100
        began = time.monotonic()
        for event in events:
            sink(event)
        assert time.monotonic() - began < len(events) / 1000
