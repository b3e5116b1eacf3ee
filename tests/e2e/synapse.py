"""A real Synapse on loopback: SQLite, authenticated media, users by shared secret; federates with nobody."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import secrets
import shutil
import sqlite3
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import yaml

from tests.e2e.process import Child, free_ports

# With a port, so that clients percent-encode the colon (facts/wire.md).
SERVER_NAME = "synapse.test:8448"
_UNLIMITED = {"per_second": 10_000, "burst_count": 10_000}


@dataclass(frozen=True)
class User:
    """An account and the access token of its one device."""

    user_id: str
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request of this user."""
        return {"Authorization": f"Bearer {self.token}"}


class Synapse:
    """A homeserver of its own in a temporary directory, for the length of a `with` block.

    `settings` stand in its homeserver.yaml instead of ours, `python` is the interpreter that has it.
    """

    server_name = SERVER_NAME

    def __init__(
        self, settings: Mapping[str, Any] | None = None, python: Path = Path(sys.executable)
    ) -> None:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._registration_secret = secrets.token_hex(16)
        self._directory = Path(tempfile.mkdtemp(prefix="synapse-"))
        configuration = self._directory / "homeserver.yaml"
        configuration.write_text(yaml.safe_dump({**self._configuration(port), **(settings or {})}))
        (self._directory / "signing.key").write_text(f"ed25519 a_e2e {_unpadded(secrets.token_bytes(32))}\n")
        self._process = Child(
            [str(python), "-m", "synapse.app.homeserver", "--config-path", str(configuration)],
            self._directory / "synapse.log",
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def stop(self) -> None:
        """Its files stay, for `start`."""
        self._process.terminate(15)

    def start(self) -> None:
        """Once more."""
        self._process.start()
        self._process.wait_until(self._answers, 90)

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    async def register(self, name: str, password: str | None = None, *, admin: bool = False) -> User:
        """A new user with a device; without a password there is no logging in on another."""
        path = "/_synapse/admin/v1/register"
        async with aiohttp.ClientSession(self.url, raise_for_status=True) as session:
            async with session.get(path) as answer:
                nonce = (await answer.json())["nonce"]
            form = self._registration(nonce, name, password or secrets.token_urlsafe(12), admin=admin)
            async with session.post(path, json=form) as answer:
                account = await answer.json()
        return User(account["user_id"], account["access_token"])

    async def upload(
        self,
        user: User,
        content: bytes,
        content_type: str = "application/octet-stream",
        filename: str | None = None,
    ) -> str:
        """Store `content` as media of `user`; its mxc:// URI."""
        query = {"filename": filename} if filename else {}
        return await self._create(user, "/_matrix/media/v3/upload", query, content, content_type)

    async def reserve(self, user: User) -> str:
        """The mxc:// URI of media that are not uploaded yet."""
        return await self._create(user, "/_matrix/media/v1/create")

    async def send(self, user: User, kind: str, content: Mapping[str, Any]) -> tuple[str, str]:
        """An event in a new room of the user's; IDs of both."""
        async with aiohttp.ClientSession(self.url, headers=user.headers, raise_for_status=True) as session:
            async with session.post("/_matrix/client/v3/createRoom", json={}) as answer:
                room = str((await answer.json())["room_id"])
            path = f"/_matrix/client/v3/rooms/{quote(room)}/send/{kind}/{secrets.token_hex(8)}"
            async with session.put(path, json=dict(content)) as answer:
                return room, str((await answer.json())["event_id"])

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Of its database."""
        with contextlib.closing(sqlite3.connect(self._directory / "homeserver.db")) as connection:
            return connection.execute(sql).fetchall()

    async def logout(self, user: User) -> None:
        """Revoke the user's token."""
        async with aiohttp.ClientSession(self.url, headers=user.headers, raise_for_status=True) as session:
            await session.post("/_matrix/client/v3/logout", json={})

    async def guest(self) -> User:
        """Somebody without an account."""
        path = "/_matrix/client/v3/register?kind=guest"
        async with (
            aiohttp.ClientSession(self.url, raise_for_status=True) as session,
            session.post(path, json={}) as answer,
        ):
            account = await answer.json()
        return User(account["user_id"], account["access_token"])

    async def lock(self, user: User) -> None:
        """Lock the user's account: an administrator may unlock it again."""
        admin = await self.register(f"admin-{secrets.token_hex(4)}", admin=True)
        async with aiohttp.ClientSession(self.url, headers=admin.headers, raise_for_status=True) as session:
            await session.put(f"/_synapse/admin/v2/users/{user.user_id}", json={"locked": True})

    def expire(self, mxc: str) -> None:
        """Let the time go by in which reserved media can be uploaded."""
        self._change(mxc, "created_ts = 0")

    def predate_authentication(self, mxc: str) -> None:
        """Make media those of the time when everybody might have them."""
        self._change(mxc, "authenticated = false")

    def _change(self, mxc: str, assignment: str) -> None:
        statement = f"UPDATE local_media_repository SET {assignment} WHERE media_id = ?"  # noqa: S608 - ours
        with contextlib.closing(sqlite3.connect(self._directory / "homeserver.db")) as database, database:
            changed = database.execute(statement, [mxc.rpartition("/")[2]])
            assert changed.rowcount == 1

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        """All that it has written; it has a line for every request."""
        return self._process.output.read_text()

    def stores(self, content: bytes) -> bool:
        """Whether `content` is part of any file of its media store."""
        files = (self._directory / "media").rglob("*")
        return any(content in file.read_bytes() for file in files if file.is_file())

    async def _create(
        self,
        user: User,
        path: str,
        query: Mapping[str, str] | None = None,
        content: bytes = b"",
        content_type: str = "application/json",
    ) -> str:
        headers = {**user.headers, "Content-Type": content_type}
        async with (
            aiohttp.ClientSession(self.url, headers=headers, raise_for_status=True) as session,
            session.post(path, params=query, data=io.BytesIO(content)) as answer,
        ):
            return str((await answer.json())["content_uri"])

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self.url}/_matrix/client/versions", timeout=5) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def _registration(self, nonce: str, name: str, password: str, *, admin: bool) -> dict[str, Any]:
        proof = f"{nonce}\0{name}\0{password}\0{'admin' if admin else 'notadmin'}".encode()
        mac = hmac.new(self._registration_secret.encode(), proof, hashlib.sha1).hexdigest()
        return {"nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac}

    def _configuration(self, port: int) -> dict[str, Any]:
        listener = {
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "x_forwarded": True,
            "resources": [{"names": ["client", "federation"]}],
        }
        return {
            "server_name": self.server_name,
            "listeners": [listener],
            "database": {"name": "sqlite3", "args": {"database": str(self._directory / "homeserver.db")}},
            "media_store_path": str(self._directory / "media"),
            "signing_key_path": str(self._directory / "signing.key"),
            "registration_shared_secret": self._registration_secret,
            "macaroon_secret_key": secrets.token_hex(16),
            "form_secret": secrets.token_hex(16),
            "enable_authenticated_media": True,
            "max_upload_size": "50M",
            "max_pending_media_uploads": 20,
            "allow_guest_access": True,
            "bcrypt_rounds": 4,
            "rc_registration": _UNLIMITED,
            "rc_login": {"address": _UNLIMITED, "account": _UNLIMITED, "failed_attempts": _UNLIMITED},
            "rc_media_create": _UNLIMITED,
            "rc_message": _UNLIMITED,
            "report_stats": False,
            "trusted_key_servers": [],
            "federation_domain_whitelist": [],
        }


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
