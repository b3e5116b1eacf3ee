"""What the quarantine's bucket really does: servers lie silently about it (facts/operations.md, section 1).

Everything is tried below `doctor/`, with the scanner's own credential, and with none and a wrong one.
Only a maintenance credential can remove what is left there, and prove that a lock holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from base64 import b64encode
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from aiobotocore.session import AioSession

from scanner.doctor.finding import Notes
from scanner.doctor.s3_policy import DOCTOR
from scanner.errors import ConfigError, StoreError
from scanner.quarantine.layout import OBJECTS
from scanner.stores.s3 import Bucket, Refused, asked_for, connected, translated

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_DEADLINE = 5.0
_LOCKED = 300.0
_WRITERS = 8
_PROBE = b"media-scanner doctor"
_POLICY = "put the policy of `media-scanner doctor --print-policy` in force at the bucket"
_CREDENTIALS = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_REGION = "correct quarantine.s3.region"
_OPTIONS = "take quarantine.s3.encryption and retention out, or have the server support them"
_ANOTHER = "use another server: see docs/operations.md, Quarantine"
_LOG = "look at the log of the S3 server, or of its proxy"
_PRECONDITION = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
_DENIED = frozenset({"AccessDenied", "403", "SignatureDoesNotMatch", "InvalidAccessKeyId"})
_ADVICE = {
    "AccessDenied": _POLICY,
    "403": _POLICY,
    "NoSuchBucket": "make the bucket, or correct quarantine.s3.bucket",
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "ExpiredToken": "renew the credentials; restart the service, if they are in its environment",
    "RequestTimeTooSkewed": "have NTP set this machine's clock",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "301": _REGION,
    "InvalidRequest": _OPTIONS,
    "NotImplemented": _OPTIONS,
    "404": "correct quarantine.s3.endpoint_url: this is no S3 server, or not its address",
}


async def examine(notes: Notes, bucket: Bucket, maintenance: str | None = None) -> None:
    """With the credentials in the environment, and the profile `maintenance` of those who may delete."""
    notes.subject = f"{bucket.endpoint_url or 's3:/'}/{bucket.name}/{bucket.prefix}".rstrip("/")
    _note_transport(notes, bucket)
    if bucket.retention is not None:
        bucket = replace(bucket, retention=_LOCKED)  # these are no samples
    try:
        async with AsyncExitStack() as stack:
            scanner = AioSession()
            client = await stack.enter_async_context(connected(bucket, _DEADLINE, scanner))
            maintaining = await _maintenance_client(bucket, maintenance, stack)
            visit = _Visit(notes, bucket, client, maintaining)
            if await visit.writes():
                await visit.keeps_what_is_put()
                await visit.keeps_others_out(scanner)
                await visit.locks()
    except ConfigError as problem:
        notes.failed("configuration", problem.info, "correct the section quarantine.s3, or the AWS profile")
    except StoreError as problem:
        found = problem.info.partition(": ")[2]
        advice = (
            _CREDENTIALS
            if "no credentials" in found
            else "correct quarantine.s3.endpoint_url, or start the server"
        )
        notes.failed("answers", found, advice)


def _note_transport(notes: Notes, bucket: Bucket) -> None:
    parts = urlsplit(bucket.endpoint_url or "https://")
    if parts.scheme == "http" and not _is_here(parts.hostname or ""):
        found = "plain http: who listens sees hashes and media IDs, though no sample"
        notes.warning("transport", found, "use https, and quarantine.s3.ca_file for certificates of your own")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def _maintenance_client(bucket: Bucket, profile: str | None, stack: AsyncExitStack) -> S3Client | None:
    if profile is None:
        return None
    return await stack.enter_async_context(connected(bucket, _DEADLINE, AioSession(profile=profile)))


class _Visit:
    """One examination, as the scanner and as those who may delete; its probes have names of their own."""

    def __init__(self, notes: Notes, bucket: Bucket, client: S3Client, maintenance: S3Client | None) -> None:
        self._notes = notes
        self._bucket = bucket
        self._client = client
        self._maintenance = maintenance
        self._below = f"{bucket.prefix}{DOCTOR}/{secrets.token_hex(8)}/"
        self._probe = f"{self._below}probe"

    async def writes(self) -> bool:
        """Whether the scanner's credential can put at all: without that nothing else can be known."""
        code, answer = await self._put(self._probe, _PROBE)
        if code:
            self._notes.failed("write", f"refused: {code}", _ADVICE.get(code, _LOG))
            return False
        self._notes.ok("write", f"below {DOCTOR}/")
        self._note_encryption(answer)
        return True

    def _note_encryption(self, answer: Mapping[str, Any]) -> None:
        asked, echo = self._bucket.encryption, answer.get("ServerSideEncryption")
        if asked is None:
            said = f"the server does it by itself: {echo}" if echo else "not asked for; samples are sealed"
            self._notes.ok("encryption", said)
        elif echo == asked:
            self._notes.ok("encryption", f"the server says that it encrypts with {asked}")
        else:
            found = f"the server ignores that {asked} is asked for"
            self._notes.failed("encryption", found, "take quarantine.s3.encryption out: samples are sealed")

    async def keeps_what_is_put(self) -> None:
        """Read back, conditional put, a race, checksums: on what the code relies."""
        await self._read_back()
        await self._conditional_put()
        await self._race()
        await self._checksum()

    async def _read_back(self) -> None:
        code, content = await _outcome(self._read(self._client, self._probe))
        if code:
            self._notes.failed("read back", f"refused: {code}", _ADVICE.get(code, _LOG))
        elif content != _PROBE:
            self._notes.failed("read back", "what comes back is not what was put", _ANOTHER)
        else:
            self._notes.ok("read back", "what was put comes back")

    async def _conditional_put(self) -> None:
        code, _ = await self._put(self._probe, b"another")
        if code in _PRECONDITION:
            self._notes.ok("conditional put", "nothing is replaced")
        elif code:
            self._notes.failed("conditional put", f"refused, but with {code}", _LOG)
        else:
            found = "If-None-Match is ignored: what is stored, the audit chain too, can be replaced"
            advice = "use a bucket without versioning, if this is radosgw; else another server"
            self._notes.failed("conditional put", found, advice)

    async def _race(self) -> None:
        puts = [self._put(f"{self._below}race", bytes([number])) for number in range(_WRITERS)]
        codes = [code for code, _ in await asyncio.gather(*puts)]
        first = codes.count("")
        if first == 1 and set(codes) <= {"", *_PRECONDITION}:
            self._notes.ok("race", f"of {_WRITERS} at once one is first")
        else:
            found = f"of {_WRITERS} at once {first} were told that they are first"
            self._notes.failed("race", found, "use a server that has conditional puts")

    async def _checksum(self) -> None:
        code, _ = await self._put(f"{self._below}damaged", b"damaged", md5=_md5(b"whole"))
        if code:
            self._notes.ok("checksum", "what is damaged on the way is refused")
        else:
            found = "Content-MD5 is ignored: what is damaged on the way is stored"
            self._notes.warning("checksum", found, "use https, which notices it")

    async def keeps_others_out(self, scanner: AioSession) -> None:
        """The scanner from deleting and from samples; those with a wrong secret or none from everything."""
        await self._sample()
        await self._wrong_secret(scanner)
        await self._anonymous()
        await self._delete()

    async def _delete(self) -> None:
        code, _ = await _outcome(self._client.delete_object(Bucket=self._bucket.name, Key=self._probe))
        if code in _DENIED:
            self._notes.ok("delete", "denied to the scanner's credential")
        elif code:
            self._notes.failed("delete", f"refused, but with {code}", _LOG)
        else:
            self._notes.failed("delete", "the scanner's credential may delete", _POLICY)

    async def _sample(self) -> None:
        """Whether there is none, some servers say even to those who may not read it."""
        key = f"{self._bucket.prefix}{OBJECTS}/{DOCTOR}/{secrets.token_hex(8)}"
        version = None
        if self._maintenance is not None:
            put = self._maintenance.put_object(Bucket=self._bucket.name, Key=key, Body=_PROBE)
            _, version = await _outcome(put)
        code, _ = await _outcome(self._read(self._client, key))
        if self._maintenance is not None and version:
            await _outcome(self._delete_version(self._maintenance, key, version.get("VersionId", "null")))
        if code in _DENIED:
            self._notes.ok("samples", "the scanner's credential may not read them")
        elif code:
            found = "whether the scanner's credential may read them cannot be seen without one"
            self._notes.skipped("samples", found, "give --maintenance-profile")
        else:
            self._notes.warning("samples", "the scanner's credential may read sealed samples", _POLICY)

    async def _wrong_secret(self, scanner: AioSession) -> None:
        credentials = await scanner.get_credentials()
        if credentials is None:
            return
        frozen = await credentials.get_frozen_credentials()
        imposter = AioSession()
        imposter.set_credentials(frozen.access_key, secrets.token_hex(20), frozen.token)
        async with connected(self._bucket, _DEADLINE, imposter) as client:
            code, _ = await _outcome(self._read(client, self._probe))
        self._note_denial("wrong secret", code)

    async def _anonymous(self) -> None:
        async with connected(self._bucket, _DEADLINE, signed=False) as client:
            reading, _ = await _outcome(self._read(client, self._probe))
            writing, _ = await _outcome(
                client.put_object(Bucket=self._bucket.name, Key=f"{self._below}anonymous", Body=_PROBE)
            )
        self._note_denial("anonymous", reading and writing)

    def _note_denial(self, name: str, code: str) -> None:
        if code in _DENIED:
            self._notes.ok(name, "refused")
        elif code:
            self._notes.warning(name, f"refused, but with {code}", _LOG)
        else:
            found = "let in: the quarantine is open to whoever reaches the server"
            self._notes.failed(name, found, "let nobody but the scanner reach the server, or use another")

    async def locks(self) -> None:
        """Object Lock, as the bucket says, and as a deletion shows; then nothing of this visit is left."""
        code, answer = await _outcome(self._client.get_object_lock_configuration(Bucket=self._bucket.name))
        enabled = answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
        if self._maintenance is None:
            self._note_lock(enabled=enabled, unknown=code in _DENIED)
            advice = "the lifecycle rule of --print-policy removes them; or give --maintenance-profile"
            self._notes.skipped("clean up", f"small probes stay below {self._below}", advice)
            return
        if enabled:
            await self._lock_holds(self._maintenance)
            await self._hold_holds(self._maintenance)
        else:
            self._note_lock(enabled=False, unknown=code in _DENIED)
        await self._clean_up(self._maintenance)

    def _note_lock(self, *, enabled: bool, unknown: bool) -> None:
        if enabled:
            self._notes.ok("object lock", "the bucket has it; give --maintenance-profile to see it hold")
        elif unknown:
            self._notes.skipped("object lock", "the scanner's credential may not ask", _POLICY)
        elif self._bucket.retention is not None:
            found = "quarantine.s3.retention is set, and the bucket has no Object Lock"
            self._notes.failed("object lock", found, "make a bucket with Object Lock, or take the key out")
        else:
            found = "none: what is deleted with the maintenance credential is gone"
            self._notes.skipped("object lock", found, "make a bucket with Object Lock, if that is too little")

    async def _lock_holds(self, maintenance: S3Client) -> None:
        bucket, key = replace(self._bucket, retention=_LOCKED), f"{self._below}locked"
        code, answer = await _outcome(
            maintenance.put_object(
                Bucket=bucket.name, Key=key, Body=_PROBE, ContentMD5=_md5(_PROBE), **asked_for(bucket)
            )
        )
        if code:
            found = f"the maintenance credential may not lock: {code}"
            self._notes.skipped("object lock", found, "let it s3:PutObjectRetention")
            return
        version = answer.get("VersionId", "null")
        code, _ = await _outcome(maintenance.delete_object(Bucket=bucket.name, Key=key, VersionId=version))
        if code:
            self._notes.ok("object lock", "what is locked is not deleted")
        else:
            self._notes.failed("object lock", "what is locked is deleted all the same", _ANOTHER)

    async def _hold_holds(self, maintenance: S3Client) -> None:
        name, key = self._bucket.name, f"{self._below}held"

        def hold(status: Literal["ON", "OFF"]) -> Awaitable[tuple[str, Any]]:
            return _outcome(
                maintenance.put_object_legal_hold(Bucket=name, Key=key, LegalHold={"Status": status})
            )

        put = maintenance.put_object(Bucket=name, Key=key, Body=_PROBE, ContentMD5=_md5(_PROBE))
        _, answer = await _outcome(put)
        code, _ = await hold("ON")
        if code:
            found = f"the maintenance credential may not hold: {code}"
            self._notes.skipped("legal hold", found, "let it s3:PutObjectLegalHold")
            return
        code, _ = await _outcome(self._delete_version(maintenance, key, answer.get("VersionId", "null")))
        if code:
            self._notes.ok("legal hold", "what is held is not deleted")
            await hold("OFF")
        else:
            self._notes.failed("legal hold", "what is held is deleted all the same", _ANOTHER)

    async def _clean_up(self, maintenance: S3Client) -> None:
        try:
            with translated(DOCTOR):
                left = await self._deleted(maintenance)
        except Refused as refusal:
            advice = "let the maintenance credential list versions and delete them"
            self._notes.warning("clean up", f"refused: {refusal.code}", advice)
            return
        self._notes.ok("clean up", f"{left} probes deleted with the maintenance credential")

    async def _deleted(self, maintenance: S3Client) -> int:
        name = self._bucket.name
        found = await maintenance.list_object_versions(Bucket=name, Prefix=self._below)
        versions = [*found.get("Versions", []), *found.get("DeleteMarkers", [])]
        for version in versions:
            await self._delete_version(maintenance, version["Key"], version["VersionId"])
        return len(versions)

    def _delete_version(self, maintenance: S3Client, key: str, version: str) -> Awaitable[Any]:
        return maintenance.delete_object(
            Bucket=self._bucket.name, Key=key, VersionId=version, BypassGovernanceRetention=True
        )

    async def _put(self, key: str, body: bytes, md5: str | None = None) -> tuple[str, Any]:
        return await _outcome(
            self._client.put_object(
                Bucket=self._bucket.name,
                Key=key,
                Body=body,
                ContentMD5=md5 or _md5(body),
                IfNoneMatch="*",
                **asked_for(self._bucket),
            )
        )

    async def _read(self, client: S3Client, key: str) -> bytes:
        answer = await client.get_object(Bucket=self._bucket.name, Key=key)
        async with answer["Body"] as body:
            return bytes(await body.read())


async def _outcome(call: Awaitable[Any]) -> tuple[str, Any]:
    """The code of a refusal, or nothing and what came. Raises StoreError where no answer came."""
    try:
        with translated(DOCTOR):
            async with asyncio.timeout(_DEADLINE):
                return "", await call
    except Refused as refusal:
        return refusal.code or "an error", {}


def _md5(content: bytes) -> str:
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
