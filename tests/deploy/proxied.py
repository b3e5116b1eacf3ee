"""Media behind a reverse proxy, and requests of which it is seen where they arrive."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from dataclasses import dataclass

from tests.e2e.curl import Answer, Curl
from tests.e2e.synapse import Synapse, User


@dataclass(frozen=True)
class Stored:
    """Media that lie on the homeserver already."""

    mxc: str
    content: bytes

    @property
    def media(self) -> str:
        """`server/media ID`."""
        return self.mxc.removeprefix("mxc://")

    @property
    def paths(self) -> list[str]:
        """Where the homeserver hands them out."""
        return [
            f"/_matrix/{prefix}/download/{self.media}{filename}"
            for prefix in ("client/v1/media", "media/v3", "media/r0", "media/v1")
            for filename in ("", "/letter%20to%20Bob.txt")
        ]


def stored(synapse: Synapse, user: User, content: bytes, content_type: str) -> Stored:
    return Stored(asyncio.run(synapse.upload(user, content, content_type)), content)


class Watched:
    """Requests under a name of their own, and which of them Synapse did not get from the product."""

    def __init__(self, synapse: Synapse, user: User) -> None:
        self._synapse = synapse
        self._name = f"watched-{secrets.token_hex(8)}"
        self.headers = {**user.headers, "User-Agent": self._name}

    def arrived(self, curl: Curl) -> list[str]:
        """Lines of Synapse's log; its last one for us is that of a request that we make now."""
        mark = f"/_matrix/client/versions?{secrets.token_hex(8)}"
        assert curl.ask(mark, self.headers).status == 200
        lines: list[str] = []
        while not lines or mark not in lines[-1]:
            time.sleep(0.02)
            lines = [line for line in self._synapse.log().splitlines() if f'"{self._name}"' in line]
        return lines[:-1]

    def requests(self, curl: Curl) -> list[str]:
        """The request targets of those lines."""
        return [
            line.rpartition(" HTTP/1.")[0].rpartition('"')[2].partition(" ")[2] for line in self.arrived(curl)
        ]


def upload(curl: Curl, user: User, target: str, content: bytes, *options: str) -> Answer:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return curl.ask(target, user.headers, f'data-binary = "@{file.name}"', *options)
