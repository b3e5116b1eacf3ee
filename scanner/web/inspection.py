"""From a sample to a decision, the same for every route: judged, decided, told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scanner.crypto.attachment import AttachmentKey
from scanner.crypto.pk import ServerKeys
from scanner.errors import Unavailable
from scanner.events import Delivered, Detected, Observed, Occasion, Overridden, Publish, Source, StageTimed
from scanner.media import Sample
from scanner.pipeline import Pipeline
from scanner.ports import Overrides, Recorder
from scanner.verdict import Decision, IndexSecret, Outcome, Policy, Verdict
from scanner.web.request import Request


@dataclass(frozen=True, slots=True)
class Terms:
    """What a reload of the configuration replaces, all at once."""

    policy: Policy
    keys: ServerKeys
    pipeline: Pipeline


@dataclass(slots=True)
class Inquiry:
    """One request for one media, under the terms that it began with; its key may be learned later."""

    request: Request
    source: Source
    terms: Terms
    upload: bool = False
    key: AttachmentKey | None = None

    @property
    def hands_out(self) -> bool:
        """Whether a person is given the media, if the policy says so."""
        return not self.upload and self.source not in (Source.SCAN, Source.INSPECT)

    @property
    def occasion(self) -> Occasion:
        """For the audit."""
        request = self.request
        return Occasion(request.ref, self.source, encrypted=self.key is not None, request_id=request.id)


class Inspector:
    """Judges what the routes bring. `terms` may change at any time; requests under way keep theirs.

    `index` keys the names of callers; `recorders` are awaited before anybody is refused.
    """

    def __init__(
        self,
        terms: Terms,
        publish: Publish,
        index: IndexSecret,
        recorders: Sequence[Recorder] = (),
        overrides: Overrides | None = None,
    ) -> None:
        self.terms = terms
        self._publish = publish
        self._index = index
        self._recorders = recorders
        self._overrides = overrides

    def inquiry(self, request: Request, source: Source, *, upload: bool = False) -> Inquiry:
        """What is asked about `request.ref`, under the terms in force now."""
        return Inquiry(request, source, self.terms, upload)

    async def judge(self, inquiry: Inquiry, sample: Sample) -> Decision:
        """The decision on a sample.

        Raises Unavailable where no verdict can be had, unless the policy hands it over all the same.
        """
        request, key = inquiry.request, inquiry.key
        attachment = key.secret_material() if key is not None else None
        try:
            verdict = await inquiry.terms.pipeline.inspect(
                inquiry.occasion, sample, request.deadline, attachment, request.caller.name
            )
        except Unavailable as problem:
            return self._unjudged(inquiry, problem)
        return await self.settle(inquiry, verdict, sample.size)

    async def settle(self, inquiry: Inquiry, verdict: Verdict, size: int | None) -> Decision:
        """Decide on what is known, and tell what happened; `size` is the sample's, if its bytes are here.

        A detection is written down before anybody is refused for it.
        """
        decision = self.decide(inquiry, verdict)
        occasion, key = inquiry.occasion, inquiry.key
        seconds = time.monotonic() - inquiry.request.began
        self._publish(StageTimed("total", seconds))
        if decision.observed:
            self._publish(Observed(occasion, decision.outcome, decision.reason))
        elif decision.override is not None:
            self._publish(Overridden(occasion, verdict.outcome, decision.override))
        if decision.outcome is Outcome.INFECTED or (
            verdict.hashes is not None and not _is_released(decision)
        ):
            ciphertext_sha256 = key.ciphertext_sha256.hex() if key is not None else None
            told = verdict.without_paths()
            decided = replace(decision, detections=told.detections)
            detected = Detected(occasion, told, decided, size, ciphertext_sha256, seconds)
            for recorder in self._recorders:
                await recorder.record(detected)
            if decision.outcome is Outcome.INFECTED:
                self._publish(detected)
        if decision.deliver and inquiry.hands_out and verdict.content is not None:
            caller = self._index.caller(inquiry.request.caller.name)
            self._publish(Delivered(occasion, verdict.content, caller))
        return decision

    def decide(self, inquiry: Inquiry, verdict: Verdict) -> Decision:
        """By the inquiry's policy, and by what analysts said of the content."""
        override = None
        if self._overrides is not None and verdict.content is not None:
            override = self._overrides.of(verdict.content)
        return inquiry.terms.policy.decide(verdict, override, upload=inquiry.upload)

    def _unjudged(self, inquiry: Inquiry, problem: Unavailable) -> Decision:
        """No verdict could be had, but the bytes are here: a policy that observes hands them over."""
        decision = inquiry.terms.policy.decide(Verdict(()), upload=inquiry.upload)
        if inquiry.source is Source.SCAN or not decision.deliver:
            raise problem
        self._publish(Observed(inquiry.occasion, Outcome.FAILED, problem.cause))
        return decision


def _is_released(decision: Decision) -> bool:
    return decision.override is not None and decision.override.allow
