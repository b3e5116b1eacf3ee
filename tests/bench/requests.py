"""One request of the benchmark: how it goes over the wire, and what is wrong with its answer."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, NamedTuple

from tests.bench.corpus import SERVER, BaseFile, Variant, media_id
from tests.bench.http_client import Response
from tests.bench.media_repository import TOKEN

AUTHORIZATION = f"Authorization: Bearer {TOKEN}\r\n"

_API = "/_matrix/media_proxy/unstable"

Verb = Literal["scan", "download", "thumbnail"]


class Request(NamedTuple):
    """Of one media, in the dialect that the reference and the product share."""

    verb: Verb
    base: BaseFile
    variant: str
    encrypted: bool

    def method(self) -> str:
        return "POST" if self.encrypted else "GET"

    def path(self) -> str:
        if self.encrypted:
            return f"{_API}/{self.verb}_encrypted"
        query = "?width=96&height=96&method=crop" if self.verb == "thumbnail" else ""
        return f"{_API}/{self.verb}/{SERVER}/{media_id(self.base.name, self.variant, encrypted=False)}{query}"

    def body(self) -> bytes:
        if not self.encrypted:
            return b""
        return json.dumps({"file": self.base.encrypted_file(self.variant)}).encode()

    def wrong(self, response: Response) -> str | None:
        """None where the answer is right."""
        if self.verb == "scan":
            return self._wrong_scan(response)
        if self.base.infected:
            return self._wrong_refusal(response)
        return self._wrong_content(response)

    def _wrong_scan(self, response: Response) -> str | None:
        if response.status != 200:
            return f"status {response.status}"
        clean = json.loads(response.body).get("clean")
        return None if clean is (not self.base.infected) else f"wrong verdict for {self.base.name}"

    def _wrong_content(self, response: Response) -> str | None:
        """The length and the end are always compared, the hash where the client computed it."""
        if response.status != 200:
            return f"status {response.status}"
        body, tail = Variant(self.base, self.variant, self.encrypted).content()
        if response.length != len(body) + len(tail) or response.last != tail:
            return "wrong bytes"
        if response.digest and response.digest != hashlib.sha256(body + tail).digest():
            return "wrong hash"
        return None

    def _wrong_refusal(self, response: Response) -> str | None:
        if response.status == 200:
            return f"wrong verdict for {self.base.name}"
        refused = response.status == 403 and b"MCS_MEDIA_NOT_CLEAN" in response.body
        return None if refused else f"status {response.status}"
