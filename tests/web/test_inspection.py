"""From a sample to a decision; that each route tells it rightly is tested with the routes."""

from __future__ import annotations

from scanner.events import Detected, Source, StageTimed
from tests.fake_homeserver import serving
from tests.real_clamd import EICAR
from tests.web.service import Service


async def test_a_detection_is_told_once_with_what_was_asked(service: Service) -> None:
    service.homeserver.script = serving(EICAR)
    await service.get("/download/example.org/abc")
    (detected,) = service.of(Detected)
    assert (detected.occasion.source, str(detected.occasion.ref)) == (
        Source.DOWNLOAD,
        "mxc://example.org/abc",
    )
    assert detected.size == len(EICAR)
    assert "total" in [event.stage for event in service.of(StageTimed)]
