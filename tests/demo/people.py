"""Alice, Bob and a stranger: matrix-nio clients with end-to-end encryption, as people's own clients are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from ssl import SSLContext
from typing import Any, Self, TypeVar

import nio
from nio.crypto import decrypt_attachment

from tests.demo.outcome import Outcome
from tests.demo.shared_files import SharedFile
from tests.e2e.synapse import User

_ENCRYPTION = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}
# On loopback whatever fails once is broken: nio would try for ever.
_CONFIG = nio.AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0, request_timeout=20)
_SYNCS = 5
_SYNC_TIMEOUT = 3000  # milliseconds

Answer = TypeVar("Answer")


class HomeserverRefused(RuntimeError):
    """The homeserver answered something that the demo has no use for."""


class Person:
    """A client with its own keys below `store`, for the length of a `with` block; a stranger until `login`.

    `tls` verifies an https homeserver (None: as the system does).
    Raises HomeserverRefused, and aiohttp's errors, wherever it talks to the homeserver.
    """

    def __init__(self, homeserver: str, name: str, store: Path, tls: SSLContext | None = None) -> None:
        store.mkdir()
        self._client = nio.AsyncClient(homeserver, name, store_path=str(store), config=_CONFIG, ssl=tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @property
    def user(self) -> User:
        """The account and its token; not for a stranger."""
        assert self._client.logged_in
        return User(self._client.user_id, self._client.access_token)

    async def login(self, password: str) -> None:
        """Log in on a new device, and publish its keys."""
        _expect(nio.LoginResponse, await self._client.login(password))
        _expect(nio.KeysUploadResponse, await self._client.keys_upload())

    async def open_room(self, guest: Person) -> str:
        """An encrypted room with `guest` in it; its ID."""
        created = await self._client.room_create(invite=[guest.user.user_id], initial_state=[_ENCRYPTION])
        room = str(_expect(nio.RoomCreateResponse, created).room_id)
        await guest.join(room)
        await self.sync()
        return room

    async def join(self, room: str) -> None:
        """Accept an invitation."""
        _expect(nio.JoinResponse, await self._client.join(room))
        await self.sync()

    async def sync(self) -> nio.SyncResponse:
        """What happened since, waiting some seconds if nothing did."""
        return _expect(nio.SyncResponse, await self._client.sync(_SYNC_TIMEOUT))

    async def share(self, room: str, file: SharedFile) -> str:
        """Upload a file and send its event, encrypted for everybody in the room; the event's ID."""
        data = io.BytesIO(file.content)
        uploaded, keys = await self._client.upload(
            data, file.content_type, file.name, encrypt=file.encrypted, filesize=len(file.content)
        )
        mxc = _expect(nio.UploadResponse, uploaded).content_uri
        content = {
            "msgtype": "m.image" if file.content_type.startswith("image/") else "m.file",
            "body": file.name,
            "info": {"mimetype": file.content_type, "size": len(file.content)},
            **({"file": {"url": mxc, **keys}} if file.encrypted else {"url": mxc}),
        }
        sent = await self._client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
        return str(_expect(nio.RoomSendResponse, sent).event_id)

    async def receive(self, room: str, event_id: str) -> dict[str, Any]:
        """Wait for an event; its decrypted content."""
        for _ in range(_SYNCS):
            joined = (await self.sync()).rooms.join.get(room)
            for event in joined.timeline.events if joined else ():
                # Not asked of its class: nio knows no plain media in encrypted events, and says BadEvent.
                if event.event_id == event_id and event.source["type"] == "m.room.message":
                    return dict(event.source["content"])
        raise HomeserverRefused(f"the event {event_id} did not arrive, or cannot be decrypted")

    async def download(self, content: Mapping[str, Any]) -> Outcome:
        """What this person gets from the homeserver alone."""
        mxc = content["file"]["url"] if "file" in content else content["url"]
        answer = await self._client.download(mxc)
        if isinstance(answer, nio.DownloadError):
            return Outcome(answer.transport_response.status, reason=answer.status_code, info=answer.message)
        return Outcome(200, plaintext(content, answer.body))


def plaintext(content: Mapping[str, Any], body: bytes) -> bytes:
    """What a client makes of downloaded media: decrypted if the event says so; raises nio.EncryptionError."""
    if "file" not in content:
        return body
    file = content["file"]
    return bytes(decrypt_attachment(body, file["key"]["k"], file["hashes"]["sha256"], file["iv"]))


def _expect(kind: type[Answer], answer: object) -> Answer:
    if not isinstance(answer, kind):
        if isinstance(answer, nio.ErrorResponse) and answer.transport_response is not None:
            status = answer.transport_response.status
            raise HomeserverRefused(f"the homeserver refused: {status} {answer.status_code} {answer.message}")
        raise HomeserverRefused(f"the homeserver refused: {answer}")
    return answer
