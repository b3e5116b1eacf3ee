from __future__ import annotations

from scanner.bus import Bus
from scanner.events import BadRequest, Event, Rejected
from tests.fakes import RecordingSink


def test_every_sink_gets_every_event_in_order() -> None:
    sinks = [RecordingSink(), RecordingSink()]
    bus = Bus(sinks)
    events: list[Event] = [Rejected("overload"), BadRequest("a header without a colon"), Rejected("timeout")]
    for event in events:
        bus.publish(event)
    assert [sink.events for sink in sinks] == [events, events]


def test_bus_without_sinks_is_silent() -> None:
    Bus([]).publish(Rejected("overload"))
