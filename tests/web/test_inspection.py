"""From a sample to a decision; that each route tells it rightly is tested with the routes."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import cast

import pytest

from scanner.errors import EngineError
from scanner.events import Delivered, Detected, Observed, Overridden, Scanned, Source, StageTimed
from scanner.verdict import Detection, Hashes, IndexSecret, Outcome, Policy, Reason, Report, Verdict
from scanner.web.inspection import Inspector
from scanner.web.request import Request
from tests.fake_homeserver import serving
from tests.real_clamd import EICAR
from tests.web.service import ALICE, BOB, FORBIDDEN, FOUND, LOCKED, Attachment, Serve, Service


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


async def test_who_is_given_media_is_told_by_content_and_not_by_name(service: Service) -> None:
    service.homeserver.script = serving(b"harmless")
    for token in (ALICE, ALICE, BOB):
        await service.get("/download/example.org/abc", token)
    one, again, other = service.of(Delivered)
    content = IndexSecret(bytes(32)).content(hashlib.sha256(b"harmless").digest())
    assert {event.content for event in (one, again, other)} == {content}
    assert one.caller == again.caller != other.caller
    assert str(one.occasion.ref) == "mxc://example.org/abc"


async def test_the_content_of_an_encrypted_attachment_is_that_of_its_plaintext(service: Service) -> None:
    attachment = Attachment.of(b"harmless")
    service.homeserver.script = serving(attachment.ciphertext)
    for _ in range(2):
        await service.post("/download_encrypted", attachment.json)
    content = IndexSecret(bytes(32)).content(hashlib.sha256(b"harmless").digest())
    assert [event.content for event in service.of(Delivered)] == [content, content]


async def test_a_scan_a_refusal_and_an_upload_are_no_deliveries(service: Service) -> None:
    service.homeserver.script = serving(b"harmless")
    await service.get("/scan/example.org/abc")
    service.homeserver.script = serving(EICAR)
    await service.get("/download/example.org/abc")
    inquiry = service.inspector.inquiry(cast("Request", None), Source.UPLOAD, upload=True)
    assert service.of(Delivered) == []
    assert not inquiry.hands_out


async def test_what_is_handed_over_only_because_the_policy_observes_is_a_delivery(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True))
    service.homeserver.script = serving(EICAR)
    await service.get("/download/example.org/abc")
    assert [type(event) for event in service.events if isinstance(event, Detected | Delivered)] == [
        Detected,
        Delivered,
    ]


async def test_where_in_an_archive_malware_is_stands_in_no_event(service: Service) -> None:
    service.homeserver.script = serving(EICAR)
    await service.get("/scan/example.org/abc")
    await service.get("/download/example.org/abc")
    scanned, detected = service.of(Scanned), service.of(Detected)
    told = [event.verdict.detections for event in (*scanned, *detected)]
    told += [event.decision.detections for event in detected]
    assert told == [(Detection(FOUND.signature),)] * 5


# -- what analysts said --------------------------------------------------------------------------


@pytest.mark.parametrize("content", [EICAR, FORBIDDEN, LOCKED])
async def test_what_an_analyst_allows_is_handed_over_and_is_no_detection(
    service: Service, content: bytes
) -> None:
    service.homeserver.script = serving(content)
    assert (await service.get("/download/example.org/abc")).status == 403
    service.overrides.say(content, allow=True)
    service.events.clear()
    assert (await service.get("/download/example.org/abc")).body == content
    assert (await service.get("/scan/example.org/abc")).content["clean"] is True
    assert service.of(Detected) == []
    assert [event.override.allow for event in service.of(Overridden)] == [True, True]


async def test_what_an_analyst_denies_is_withheld_and_told(service: Service) -> None:
    service.homeserver.script = serving(b"harmless")
    service.overrides.say(b"harmless", allow=False)
    assert (await service.get("/download/example.org/abc")).refusal == (403, "MCS_MEDIA_NOT_CLEAN")
    assert (await service.get("/scan/example.org/abc")).content["clean"] is False
    assert [(event.outcome, event.override.allow) for event in service.of(Overridden)] == [
        (Outcome.CLEAN, False),
        (Outcome.CLEAN, False),
    ]
    assert service.of(Delivered) == []


@pytest.mark.parametrize(("content", "allow"), [(EICAR, True), (b"harmless", False)])
async def test_word_on_a_content_holds_for_attachments_that_are_known_by_name(
    service: Service, content: bytes, allow: bool
) -> None:
    attachment = Attachment.of(content)
    service.homeserver.script = serving(attachment.ciphertext)
    await service.post("/scan_encrypted", attachment.json)
    service.overrides.say(content, allow=allow)
    assert (await service.post("/scan_encrypted", attachment.json)).content["clean"] is allow
    reply = await service.post("/download_encrypted", attachment.json)
    assert reply.status == (200 if allow else 403)
    assert service.engine.scans == 1


async def test_what_no_engine_could_judge_is_not_handed_over_on_anybodys_word(service: Service) -> None:
    service.homeserver.script = serving(EICAR)
    service.engine.problem = EngineError("gone", "eof")
    service.overrides.say(EICAR, allow=True)
    assert (await service.get("/download/example.org/abc")).status == 503


async def test_while_the_policy_observes_what_is_denied_is_told_as_such(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True))
    service.homeserver.script = serving(b"harmless")
    service.overrides.say(b"harmless", allow=False)
    assert (await service.get("/download/example.org/abc")).status == 200
    assert [event.reason for event in service.of(Observed)] == [Reason.DENIED]
    assert service.of(Overridden) == []


class Records:
    """A Recorder that notes what it is to write down."""

    def __init__(self) -> None:
        self.recorded: list[Detected] = []

    async def record(self, detection: Detected) -> None:
        self.recorded.append(detection)


async def test_what_is_to_be_kept_has_a_record_although_its_sample_could_not_be_written(
    service: Service,
) -> None:
    """The disk was full: hash and record are all that is left of it."""
    recorders = [Records(), Records()]
    inspector = Inspector(service.inspector.terms, service.events.append, IndexSecret(bytes(32)), recorders)
    report = Report("mime", Outcome.FORBIDDEN, "1", Reason.FORBIDDEN_TYPE)
    verdict = Verdict((report,), hashes=Hashes("ab" * 32, "cd" * 20, "ef" * 16), kept=False)
    inquiry = inspector.inquiry(
        cast("Request", SimpleNamespace(ref=None, id="1", began=0.0)), Source.DOWNLOAD
    )
    decision = await inspector.settle(inquiry, verdict, 1)
    assert not decision.deliver
    assert [each.verdict for recorder in recorders for each in recorder.recorded] == [verdict, verdict]
    assert service.of(Detected) == []
