"""The scanner API as a client without a library calls it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import vodozemac
from multidict import CIMultiDictProxy

from tests.e2e.synapse import User

_API = "/_matrix/media_proxy/unstable"


@dataclass(frozen=True)
class Reply:
    """A complete answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object in it."""
        return dict(json.loads(self.body))

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and reason of an error, in the form that clients parse: no `errcode` (facts/wire.md)."""
        assert self.content.keys() == {"reason", "info"}
        assert self.content["info"]
        return self.status, self.content["reason"]


class ScannerApi:
    """Calls on behalf of `user`, or of nobody."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def public_key(self) -> str:
        return str((await self._ask("GET", "/public_key", None)).content["public_key"])

    async def scan(self, mxc: str, user: User | None, **query: str) -> Reply:
        return await self._ask("GET", f"/scan/{_path(mxc)}", user, query)

    async def download(self, mxc: str, user: User | None, filename: str | None = None) -> Reply:
        suffix = f"/{filename}" if filename else ""
        return await self._ask("GET", f"/download/{_path(mxc)}{suffix}", user)

    async def thumbnail(self, mxc: str, user: User | None, **query: str) -> Reply:
        return await self._ask("GET", f"/thumbnail/{_path(mxc)}", user, query)

    async def scan_encrypted(self, content: Mapping[str, Any], user: User | None) -> Reply:
        return await self._ask("POST", "/scan_encrypted", user, content=content)

    async def download_encrypted(self, content: Mapping[str, Any], user: User | None) -> Reply:
        return await self._ask("POST", "/download_encrypted", user, content=content)

    async def scan_file(self, file: bytes, user: User | None, info: Mapping[str, Any] | None = None) -> Reply:
        form = aiohttp.FormData()
        form.add_field("body", io.BytesIO(file), filename="file", content_type="application/octet-stream")
        if info is not None:
            form.add_field("file", json.dumps(info), content_type="application/json")
        return await self._ask("POST", "/scan_file", user, form=form)

    async def _ask(
        self,
        method: str,
        path: str,
        user: User | None,
        query: Mapping[str, str] | None = None,
        content: Mapping[str, Any] | None = None,
        form: aiohttp.FormData | None = None,
    ) -> Reply:
        headers = user.headers if user else {}
        async with self._session.request(
            method, _API + path, headers=headers, params=query, json=content, data=form
        ) as answer:
            return Reply(answer.status, answer.headers, await answer.read())


def seal_with_vodozemac(public_key: str, content: str) -> dict[str, str]:
    """An `encrypted_body`: `content` for the owner of that key alone."""
    key = vodozemac.Curve25519PublicKey.from_base64(public_key)
    sealed = vodozemac.PkEncryption.from_key(key).encrypt(content.encode())
    return {
        "ephemeral": unpadded(sealed.ephemeral_key),
        "ciphertext": unpadded(sealed.ciphertext),
        "mac": unpadded(sealed.mac),
    }


def unpadded(data: bytes) -> str:
    """Base64 as Matrix writes it."""
    return base64.b64encode(data).decode().rstrip("=")


def _path(mxc: str) -> str:
    return mxc.removeprefix("mxc://")
