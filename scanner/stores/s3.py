"""A quarantine store in S3, or in what speaks like it (facts/operations.md, section 1).

Servers differ in what they silently ignore, so that nothing rests on one: what is stored is sealed already,
names are those of the content, and `If-None-Match` decides who was first. Each request has a deadline of
ours, because botocore's do not end a wait for `100 Continue`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentialResolver, AioCredentials
from aiobotocore.session import AioSession, get_session
from aiohttp import ClientError as AiohttpError
from botocore import UNSIGNED
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

from scanner.errors import ConfigError, StoreError
from scanner.ports import Stored

if TYPE_CHECKING:
    from aiobotocore.response import StreamingBody
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

_DEADLINE = 30.0
_PAGE = 100  # names at once: botocore reads a thousand in 40 ms, on the event loop
# Codes of errors; where a server says none, botocore takes the status.
_EXISTS = frozenset({"PreconditionFailed", "412"})
_ABSENT = frozenset({"NoSuchKey", "404"})
# What a bucket without Object Lock says of that, and a server that knows no such thing.
_LOCKLESS = frozenset({"ObjectLockConfigurationNotFoundError", "NotImplemented", "501"})
# Somebody else writes it at this moment: whether it will be there is not known yet.
_CONFLICT = frozenset({"ConditionalRequestConflict", "409"})
_CONFLICT_PAUSE = 0.25
_SMALL = 1024 * 1024
_LONGEST_CODE = 100


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where, and how. Without `endpoint_url` it is AWS; credentials come from its standard places."""

    name: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    ca_file: Path | None = None
    encryption: str | None = None  # the value of x-amz-server-side-encryption, echoed or refused
    retention: float | None = (
        None  # seconds for which nobody may delete what is put (Object Lock, GOVERNANCE)
    )


class S3:
    """One bucket; use it as an async context manager. `deadline` is in seconds, for each request."""

    name = "s3"

    def __init__(self, bucket: Bucket, *, deadline: float = _DEADLINE) -> None:
        self._bucket = bucket
        self._deadline = deadline
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises ConfigError where no client can be made of this; the server is not asked yet."""
        self._client = await self._stack.enter_async_context(connected(self._bucket, self._deadline))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def put(self, key: str, content: Path | bytes) -> bool:
        with translated(key):
            async with asyncio.timeout(self._deadline):
                if isinstance(content, bytes):
                    return await self._put(key, content, _md5(content))
                small, md5 = await asyncio.to_thread(_read, content)
                if small is not None:
                    return await self._put(key, small, md5)
                with content.open("rb") as file:
                    return await self._put(key, file, md5)

    async def get(self, key: str, largest: int | None = None) -> bytes | None:
        try:
            async with self._answered(key):
                answer = await self._client.get_object(Bucket=self._bucket.name, Key=self._full(key))
                async with answer["Body"] as body:
                    return await _content(body, largest)
        except Refused as refusal:
            if refusal.code in _ABSENT:
                return None
            raise

    async def listing(self, prefix: str) -> AsyncIterator[Stored]:
        last, token = "", dict[str, Any]()
        while True:
            async with self._answered(prefix):
                page = await self._client.list_objects_v2(
                    Bucket=self._bucket.name, Prefix=self._full(prefix), MaxKeys=_PAGE, **token
                )
                found = [self._stored(entry) for entry in page.get("Contents", [])]
                before, token = token, _rest(page)
            for stored in found:
                if not stored.key.startswith(prefix):
                    raise StoreError(f"{prefix}: the store lists what was not asked for")
                if stored.key <= last or token == before != {}:
                    raise StoreError(f"{prefix}: the store lists names in no order, or goes round in circles")
                last = stored.key
                yield stored
            if not token:
                return

    def _stored(self, entry: ObjectTypeDef) -> Stored:
        key = entry["Key"].removeprefix(self._bucket.prefix)
        return Stored(key, entry["Size"], entry["LastModified"].timestamp())

    async def delete(self, key: str) -> None:
        async with self._answered(key):
            await self._client.delete_object(Bucket=self._bucket.name, Key=self._full(key))

    async def hold(self, key: str, on: bool) -> bool:  # noqa: FBT001 - as the port has it
        """A legal hold on its newest version, where the bucket has Object Lock.

        That is asked first: a server that knows no `?legal-hold` would store the request as the object.
        """
        if not await self._has_lock(key):
            return False
        async with self._answered(key):
            await self._client.put_object_legal_hold(
                Bucket=self._bucket.name, Key=self._full(key), LegalHold={"Status": "ON" if on else "OFF"}
            )
        return True

    async def _has_lock(self, key: str) -> bool:
        try:
            async with self._answered(key):
                answer = await self._client.get_object_lock_configuration(Bucket=self._bucket.name)
        except Refused as refusal:
            if refusal.code in _LOCKLESS:
                return False
            raise
        return answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"

    async def _put(self, key: str, body: BinaryIO | bytes, md5: str) -> bool:
        while True:
            try:
                with translated(key):
                    await self._put_once(key, body, md5)
            except Refused as refusal:
                if refusal.code in _EXISTS:
                    return False
                if refusal.code not in _CONFLICT:
                    raise
            else:
                return True
            await asyncio.sleep(_CONFLICT_PAUSE)
            if not isinstance(body, bytes):
                body.seek(0)

    async def _put_once(self, key: str, body: BinaryIO | bytes, md5: str) -> None:
        answer = await self._client.put_object(
            Bucket=self._bucket.name,
            Key=self._full(key),
            Body=body,
            ContentMD5=md5,
            IfNoneMatch="*",
            **asked_for(self._bucket),
        )
        if not answer.get("ETag"):
            raise StoreError(f"{key}: what answered names nothing that it stored: is it S3?")
        encryption = self._bucket.encryption
        if encryption and answer.get("ServerSideEncryption") != encryption:
            raise StoreError(f"{key}: stored, but the server does not say that it encrypts with {encryption}")

    def _full(self, key: str) -> str:
        return self._bucket.prefix + key

    @asynccontextmanager
    async def _answered(self, key: str) -> AsyncIterator[None]:
        """One request, within its deadline; what goes wrong is said in our words."""
        with translated(key):
            async with asyncio.timeout(self._deadline):
                yield


class Refused(StoreError):
    """The server's answer is an error; `code` is what it calls it, its status if it does not."""

    def __init__(self, key: str, code: str) -> None:
        super().__init__(f"{key}: the store refuses: {code[:_LONGEST_CODE] or 'without a reason'}")
        self.code = code


@asynccontextmanager
async def connected(
    bucket: Bucket, deadline: float = _DEADLINE, session: AioSession | None = None, *, signed: bool = True
) -> AsyncIterator[S3Client]:
    """A client of this bucket's server; with `signed` false it is nobody's. Raises ConfigError.

    Credentials are looked for now, in AWS's standard places, and again when its files change; a machine's own
    role only where AWS is asked, for elsewhere nobody answers at that address.
    """
    session = session or get_session()
    config = AioConfig(
        s3={
            "addressing_style": "path" if bucket.endpoint_url else "auto",
            "payload_signing_enabled": False,  # Content-MD5 is signed: no second hash, on the event loop
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version="s3v4" if signed else UNSIGNED,
        user_agent="media-scanner",  # botocore's own takes a tenth of each put to write
        connect_timeout=5,
        read_timeout=deadline,
        retries={"total_max_attempts": 1},  # ours are in `shipper.py`
    )
    async with AsyncExitStack() as stack:
        try:
            chain = session.get_component("credential_provider")
            if bucket.endpoint_url is not None:
                chain.remove("iam-role")
            session.register_component("credential_provider", _Credentials(session, chain))
            client = await stack.enter_async_context(
                session.create_client(
                    "s3",
                    endpoint_url=bucket.endpoint_url,
                    region_name=bucket.region or "us-east-1",
                    verify=str(bucket.ca_file) if bucket.ca_file is not None else None,
                    config=config,
                )
            )
        except (BotoCoreError, ValueError, OSError) as problem:
            raise ConfigError(f"quarantine.s3: {problem}") from None
        client.meta.events.register("before-call.s3.PutObjectLegalHold", _add_md5)
        yield client


class _Credentials(AioCredentials):  # type: ignore[misc]  # aiobotocore has no types
    """What botocore's `chain` finds, looked for again when one of AWS's files has changed.

    Somebody may be writing it at that moment: what was found before holds until something else is.
    """

    def __init__(self, session: AioSession, chain: AioCredentialResolver) -> None:
        super().__init__("", "")
        self._chain = chain
        variables = ("credentials_file", "config_file")
        self._files = [Path(session.get_config_variable(name)).expanduser() for name in variables]

    async def load_credentials(self) -> Self:
        """What a session asks for. Raises BotoCoreError, OSError."""
        self._seen = self._states()
        self._found = await self._chain.load_credentials()
        return self

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What a request asks for. Raises NoCredentialsError."""
        if (states := self._states()) != self._seen:
            self._seen = states
            with suppress(BotoCoreError, OSError):
                self._found = await self._chain.load_credentials() or self._found
        if self._found is None:
            raise NoCredentialsError
        return await self._found.get_frozen_credentials()

    def _states(self) -> list[tuple[int, ...]]:
        return [_state(file) for file in self._files]


def _state(file: Path) -> tuple[int, ...]:
    """Another one for each content, in all likelihood."""
    try:
        status = os.stat(file)  # noqa: PTH116 - of each request
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _add_md5(params: dict[str, Any], **_: object) -> None:
    """Servers want it of requests about locks; newer checksums not all of them know."""
    params["headers"]["Content-MD5"] = _md5(params["body"])


def asked_for(bucket: Bucket) -> dict[str, Any]:
    """What every put asks of the server."""
    asked: dict[str, Any] = {}
    if bucket.encryption is not None:
        asked["ServerSideEncryption"] = bucket.encryption
    if bucket.retention is not None:
        until = datetime.now(UTC) + timedelta(seconds=bucket.retention)
        asked |= {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    return asked


@contextmanager
def translated(key: str) -> Iterator[None]:
    """What goes wrong in botocore's words is a StoreError about `key` in ours."""
    try:
        yield
    except ClientError as problem:
        raise Refused(key, problem.response.get("Error", {}).get("Code", "")) from None
    except NoCredentialsError:
        raise StoreError(f"{key}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except TimeoutError:
        raise StoreError(f"{key}: the store did not answer in time") from None
    except (BotoCoreError, HTTPClientError, AiohttpError, OSError, EOFError) as problem:
        raise StoreError(f"{key}: the store cannot be reached: {type(problem).__name__}") from None
    except (KeyError, ValueError, OverflowError, RuntimeError):  # of botocore's parsers
        raise StoreError(f"{key}: what answered does not answer as S3 does") from None


def _rest(page: ListObjectsV2OutputTypeDef) -> dict[str, Any]:
    """What asks for the next page; nothing where this is the last."""
    return {"ContinuationToken": page["NextContinuationToken"]} if page.get("IsTruncated") else {}


async def _content(body: StreamingBody, largest: int | None) -> bytes:
    """Servers need not say how long it is; what is left unread ends the connection."""
    if largest is None:
        return bytes(await body.read())
    content = b""
    while piece := await body.read(largest + 1 - len(content)):
        content += piece
    return content if len(content) <= largest else b""


def _md5(content: bytes) -> str:
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _read(path: Path) -> tuple[bytes | None, str]:
    """A small file's content, and the MD5 of any: aiohttp reads files in threads, too, piece by piece."""
    with path.open("rb") as file:
        if path.stat().st_size <= _SMALL:
            content = file.read()
            return content, _md5(content)
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return None, b64encode(digest.digest()).decode()
