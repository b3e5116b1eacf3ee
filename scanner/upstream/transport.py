"""How requests travel to the homeserver: with which headers, through which proxy, believing whom.

What is here for the homeserver is for it alone: a host to which it redirects gets none of the headers but
our own, and has to have a certificate that the system believes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ssl import SSLContext

from multidict import CIMultiDict, MultiMapping

from scanner.errors import MalformedRequest
from scanner.upstream.signature import signing_server

_OWN_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "matrix-media-scanner", "Accept": "*/*"}

# Names and values, in the order of their names in the configuration.
Forwarded = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an Authorization header, an address, and the headers of his that go along.

    The homeserver may answer by any but the address, so that they make another caller. `checked`: where he
    asks, it looks at his Authorization, so that who has an answer is who he says.
    """

    authorization: str | None = field(default=None, repr=False)
    address: str | None = field(default=None, compare=False)
    forwarded: Forwarded = field(default=(), repr=False)
    checked: bool = field(default=True, compare=False)

    @property
    def name(self) -> str:
        """Whose turn it is in a queue; may be a token. Homeservers sign each request anew."""
        authorization = self.authorization if self.checked else None
        return signing_server(authorization) or authorization or self.address or ""


_OURSELVES = Caller()


@dataclass(frozen=True)
class Transport:
    """`tls` verifies an https homeserver (None: as the system does), `proxy` is the URL of an HTTP proxy.

    `additional_headers` go with every request, `headers_to_forward` name those of a caller that go with his.
    """

    proxy: str | None = None
    tls: SSLContext | None = None
    additional_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers_to_forward: tuple[str, ...] = ()

    def forwarded(self, headers: MultiMapping[str]) -> Forwarded:
        """Of a caller's headers those that go along. Raises MalformedRequest on one that cannot."""
        forwarded = tuple(
            (name, value) for name in self.headers_to_forward for value in headers.getall(name, ())
        )
        for name, value in forwarded:
            if not (value.isascii() and value.isprintable()):
                raise MalformedRequest(f"the header {name} has characters that cannot be forwarded")
        return forwarded

    def headers_for_homeserver(self, caller: Caller = _OURSELVES) -> CIMultiDict[str]:
        """What a caller sent counts more than what is configured, and that more than our own."""
        headers = headers_for_others()
        headers.update(self.additional_headers)
        headers.update(caller.forwarded)
        if caller.authorization is not None:
            headers["Authorization"] = caller.authorization
        if caller.address is not None:
            headers["X-Forwarded-For"] = caller.address
        return headers


def headers_for_others() -> CIMultiDict[str]:
    """For hosts to which the homeserver redirects."""
    return CIMultiDict(_OWN_HEADERS)
