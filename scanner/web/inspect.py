"""The decision on bytes that another program of the operator's has: by their SHA-256, else by themselves.

For the Synapse module and `media-scanner scan --remote`, on the operations listener alone, by a shared
secret. The bytes lie in a share of their own: Synapse may ask in the middle of an upload that came through
us, and nothing here waits for what that upload, or any other request, holds.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from urllib.parse import parse_qsl

from scanner.admission import Share
from scanner.crypto.pk import parse_secret
from scanner.errors import AccessDenied, InvalidMedia, MalformedRequest
from scanner.events import Source
from scanner.media import MediaRef, Sample
from scanner.verdict import Decision, Outcome, Reason, Report, Verdict, located
from scanner.web import texts
from scanner.web.dialects import MATRIX
from scanner.web.inspection import Inquiry, Inspector
from scanner.web.reception import receive
from scanner.web.request import Request
from scanner.web.wire import Answer, json_answer

_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_SIZE = re.compile(r"[0-9]{1,15}")
_TOO_LARGE = Verdict((Report("size", Outcome.UNSCANNABLE, reason=Reason.LIMIT),))


class Purpose(StrEnum):
    """Where the bytes go: to the homeserver, or from it. A file is nobody's ciphertext."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Question:
    """Which bytes are meant. `sha256` is their digest, `size` is in bytes, `ref` is for the audit."""

    sha256: bytes
    size: int
    purpose: Purpose
    ref: MediaRef | None

    @classmethod
    def parse(cls, query: str) -> Self:
        """Raises MalformedRequest."""
        given = dict(parse_qsl(query))
        if not _SHA256.fullmatch(given.get("sha256", "")):
            raise MalformedRequest("sha256 must be 64 hexadecimal digits")
        if not _SIZE.fullmatch(given.get("size", "")):
            raise MalformedRequest("size must be a number of bytes")
        if given.get("purpose") not in set(Purpose):
            raise MalformedRequest("purpose must be upload, download or file")
        try:
            ref = MediaRef.from_mxc(given["mxc"]) if "mxc" in given else None
        except InvalidMedia:
            raise MalformedRequest("mxc must be a valid mxc:// URI") from None
        return cls(bytes.fromhex(given["sha256"]), int(given["size"]), Purpose(given["purpose"]), ref)

    @property
    def keyless(self) -> bool:
        """Whether the bytes may be a ciphertext."""
        return self.purpose is not Purpose.FILE


class Inspect:
    """Handler of the route. `secret` is what callers must have, `media_size` is in bytes."""

    def __init__(self, *, inspector: Inspector, share: Share, media_size: int, secret: bytes) -> None:
        self._inspector = inspector
        self._share = share
        self._media_size = media_size
        self._secret = secret

    async def inspect(self, request: Request) -> Answer:
        """The decision; or that nothing is known, to who sent no bytes."""
        self._authenticate(request.authorization)
        question = Question.parse(request.query)
        request.ref = question.ref
        upload = question.purpose is Purpose.UPLOAD
        inquiry = self._inspector.inquiry(request, Source.INSPECT, upload=upload)
        if question.size > self._media_size:
            return _told(request, await self._inspector.settle(inquiry, _TOO_LARGE, question.size))
        if question.size and not request.http.body_exists:
            return await self._recalled(inquiry, question)
        return await self._judged(inquiry, question)

    def _authenticate(self, authorization: str | None) -> None:
        if authorization is None:
            raise AccessDenied("the secret in server.inspect_secret_file is needed", "M_MISSING_TOKEN")
        scheme, _, token = authorization.partition(" ")
        try:
            given = parse_secret(token)
        except ValueError:
            given = b""
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._secret):
            raise AccessDenied("this is not the secret in server.inspect_secret_file", "M_UNKNOWN_TOKEN")

    async def _recalled(self, inquiry: Inquiry, question: Question) -> Answer:
        known = await inquiry.terms.pipeline.recall_content(question.sha256, keyless=question.keyless)
        if known is None:
            return json_answer({"known": False})
        return _told(inquiry.request, await self._inspector.settle(inquiry, known, question.size))

    async def _judged(self, inquiry: Inquiry, question: Question) -> Answer:
        request = inquiry.request
        body = await receive(request, self._share, question.size)
        try:
            if (body.size, body.sha256) != (question.size, question.sha256):
                raise MalformedRequest("the bytes are not those of sha256 and size")
            request.start_clock()  # a slow sender has used up his own time, not ours
            decision = await self._inspector.judge(inquiry, Sample(body, keyless=question.keyless))
        finally:
            body.release()
        return _told(request, decision, in_full=question.purpose is Purpose.FILE)


def _told(request: Request, decision: Decision, *, in_full: bool = False) -> Answer:
    """503 where the engines failed, unless the policy only observes.

    Synapse is not told the names in somebody's archive; who has a file of his own scanned is, `in_full`.
    """
    if decision.outcome is Outcome.FAILED and not decision.deliver:
        return MATRIX.withheld(decision, request.language)
    found = located(decision.detections)
    places = {"found": [{"signature": each.signature, "path": each.path} for each in found]}
    return json_answer(
        {
            "known": True,
            "deliver": decision.deliver,
            "outcome": decision.outcome.name.lower(),
            "reason": decision.reason,
            "info": texts.on_decision(decision, request.language),
            "signatures": list(dict.fromkeys(each.signature for each in found)),
        }
        | (places if in_full else {})
    )
