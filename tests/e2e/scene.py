"""The whole product as a process between a homeserver and clamds that fail: the stage of the fault tests.

At the end of each scene nothing infected was served, nothing was served that no engine had called clean,
the homeserver's tokens and what was in the files are nowhere in what the product wrote, and SIGTERM ended it.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.product import Product
from tests.e2e.scanner_api import Reply, ScannerApi
from tests.e2e.synapse import User
from tests.fake_homeserver import FakeHomeserver, Heard, Script, Step, refusing, serving
from tests.fakes import encrypted_file
from tests.real_clamd import EICAR

MIB = 1024 * 1024
ORIGIN = "example.org"
BUSY = (503, "M_UNKNOWN")
REFUSED = (403, "MCS_MEDIA_NOT_CLEAN")

# Short times, so that what must not last for ever ends within seconds.
_SHORT: Mapping[str, Mapping[str, Any]] = {
    "server": {"request_timeout": "6s"},
    "homeserver": {"first_byte_timeout": "1s", "idle_timeout": "1s", "total_timeout": "2s"},
    "limits": {"media_size": "2MiB", "memory": "16MiB", "queue_wait": "1s"},
    "clamav": {"scan_timeout": "2s", "signature_poll": "500ms", "max_signature_age": None},
}


class Scene:
    """A product, the homeserver in front of which it stands, and a user.

    `served` has every media that came with 200, `secrets` what must not be in the product's output.
    """

    def __init__(self, product: Product, homeserver: FakeHomeserver, api: ScannerApi) -> None:
        self.product = product
        self.homeserver = homeserver
        self.api = api
        self.library: dict[str, bytes] = {}
        self.user = User("@alice:example.org", f"syt_{secrets.token_hex(16)}")
        self.served: list[bytes] = []
        self.secrets = {self.user.token}
        homeserver.script = self.media

    def media(self, heard: Heard) -> Sequence[Step]:
        """The homeserver's script while it is well: it hands out the library, to Alice alone."""
        target = heard.target.partition("?")[0]
        if target.endswith("/versions"):
            return list(serving(b"{}", "application/json")(heard))
        if heard.header("authorization") != f"Bearer {self.user.token}":
            return list(refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")(heard))
        content = self.library.get(target.rpartition("/")[2])
        missing = refusing("404 Not Found", "M_NOT_FOUND")
        return list((missing if content is None else serving(content))(heard))

    def but(self, script: Script) -> None:
        """From now on the homeserver answers requests for media like this."""
        self.homeserver.script = lambda heard: (
            self.media(heard) if heard.target.endswith("/versions") else script(heard)
        )

    def upload(self, content: bytes) -> str:
        """The mxc:// URI of plain media."""
        media_id = secrets.token_hex(12)
        self.library[media_id] = content
        return f"mxc://{ORIGIN}/{media_id}"

    def forget(self, mxc: str) -> None:
        """Delete media, here and among those that were served."""
        del self.library[mxc.rpartition("/")[2]]
        self.served.clear()

    def upload_encrypted(self, plaintext: bytes) -> dict[str, Any]:
        """What a client sends about an encrypted attachment."""
        ciphertext, file = encrypted_file(plaintext)
        key = file["key"]
        assert isinstance(key, dict)
        self.secrets |= {key["k"], str(file["iv"])}
        return {"file": {**file, "url": self.upload(ciphertext)}}

    async def download(self, mxc: str, filename: str | None = None) -> Reply:
        return self._noted(await self.api.download(mxc, self.user, filename))

    async def download_encrypted(self, content: Mapping[str, Any]) -> Reply:
        return self._noted(await self.api.download_encrypted(content, self.user))

    async def scan(self, mxc: str) -> Reply:
        return await self.api.scan(mxc, self.user)

    async def clean(self) -> Reply:
        """A download of clean media that were never asked for before."""
        return await self.download(self.upload(letter()))

    async def infected(self) -> Reply:
        """As `clean`, but infected."""
        return await self.download(self.upload(letter() + EICAR))

    async def well(self) -> bool:
        """Whether clean media are delivered, and infected ones found."""
        clean, infected = await self.clean(), await self.infected()
        assert infected.refusal in (REFUSED, BUSY)
        return clean.status == 200 and infected.refusal == REFUSED

    async def reasons(self) -> set[str]:
        """Why the product is not ready."""
        return await asyncio.to_thread(self.product.reasons)

    async def until(self, holds: Callable[[], bool], within: float = 10.0) -> None:
        """Wait for what is asked of the product or the kernel, without holding up the homeserver."""
        try:
            async with asyncio.timeout(within):
                while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - it is another process's event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not so after {within} s:\n{self.product.process.tail()}") from None

    async def until_ready(self, within: float = 20.0) -> None:
        await self.until(lambda: self.product.answers("ready"), within)

    async def until_no_canary_is_due(self) -> None:
        """For some seconds: a clamd that is stopped keeps the canary, a scan in flight that no client left.

        It runs once a minute, and at most a second after something changed.
        """
        last = "canary_last_success_timestamp_seconds"
        await self.until(lambda: 1.5 < time.time() - self.metric(last) < 50, 20)

    async def recovers(self, within: float) -> float:
        """The seconds until all is well; it asks again and again, as clients do."""
        began = time.monotonic()
        async with asyncio.timeout(within):
            while not await self.well():  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def start(self) -> None:
        """Start the product, at first and after its end."""
        self.product.process.start()
        self.served.clear()
        await asyncio.to_thread(self.product.process.wait_until, lambda: self.product.answers("live"), 20)

    def metric(self, name: str, **labels: str) -> float:
        return self.product.metric(name, **labels)

    def check(self) -> None:
        """What must hold whatever happened."""
        assert not [content for content in self.served if EICAR in content]
        if not self.product.process.ended:
            judged = self.metric("scans_total", verdict="clean")
            assert len({hashlib.sha256(content).digest() for content in self.served}) <= judged
            assert self.metric("http_requests_total", code="500") == 0
        assert not self.leaked()
        assert "Traceback" not in self.product.output()

    def new_secret(self) -> str:
        """Something to put wherever a secret can stand."""
        secret = f"canary{secrets.token_hex(16)}"
        self.secrets.add(secret)
        return secret

    def leaked(self) -> list[str]:
        """The secrets that stand in the output, the metrics or the names and contents of files."""
        shown = self.product.output().encode()
        if not self.product.process.ended:
            shown += self.product.metrics().encode()
        for file in self.product.state.rglob("*"):
            shown += file.name.encode() + (file.read_bytes() if file.is_file() else b"")
        return [secret for secret in self.secrets if secret.encode() in shown]

    def _noted(self, reply: Reply) -> Reply:
        if reply.status == 200:
            self.served.append(reply.body)
        return reply


def letter() -> bytes:
    """A clean text, unlike any other."""
    return f"Dear Bob, the number is {secrets.token_hex(32)}.\n".encode()


@asynccontextmanager
async def scene(
    directory: Path, *addresses: str, launcher: Sequence[str] = (), **sections: Mapping[str, Any]
) -> AsyncIterator[Scene]:
    """A scene with clamds at `addresses`, once the product is alive; `sections` over the short times."""
    clamav = {"addresses": list(addresses), "accept_test_signatures": False}
    settings = {name: {**keys, **sections.pop(name, {})} for name, keys in _SHORT.items()} | sections
    settings["clamav"] = clamav | dict(settings["clamav"])
    async with FakeHomeserver() as homeserver:
        product = Product(directory, homeserver.url, settings, launcher)
        async with aiohttp.ClientSession(product.url) as session:
            stage = Scene(product, homeserver, ScannerApi(session))
            try:
                await stage.start()
                yield stage
                stage.check()
                if not product.process.ended:
                    await asyncio.to_thread(product.stop)
            finally:
                if not product.process.ended:
                    await asyncio.to_thread(product.process.terminate, 5)  # its last lines are wanted
