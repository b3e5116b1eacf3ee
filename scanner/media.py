"""Media as they travel (`Body`) and as engines see them (`Sample`).

The rules of this module: bytes live in memory files only, sealed as soon as they are complete; the
plaintext of an encrypted attachment exists only inside `Sample.opened`; every reader gets a descriptor
of its own, because a shared one shares its offset (facts/python.md).
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from scanner.errors import InvalidMedia, Unavailable

if TYPE_CHECKING:
    from scanner.crypto.attachment import AttachmentKey

Bytes = bytes | memoryview

# Hashing and decrypting this much takes well under 1 ms: what the event loop may be held for.
STEP = 256 * 1024
_FREEING = ThreadPoolExecutor(1, "freeing")
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

# Server names per the Matrix spec, appendix "Server Name"; media IDs per "Matrix Content (mxc://) URIs".
_DNS_NAME = r"[A-Za-z0-9-][A-Za-z0-9.-]{0,254}"
_IPV6 = r"\[[0-9A-Fa-f:.]{2,45}\]"
_SERVER_NAME = re.compile(rf"(?:{_DNS_NAME}|{_IPV6})(?::[0-9]{{1,5}})?")
_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_MAX_SERVER_NAME = 255


@dataclass(frozen=True, slots=True)
class MediaRef:
    """A media ID on its origin; nothing that the spec's grammar does not allow can be one.

    A server name must not start with a dot either: `..` is grammatical, and URL libraries resolve it.
    """

    origin: str
    media_id: str

    def __post_init__(self) -> None:
        if len(self.origin) > _MAX_SERVER_NAME or not _SERVER_NAME.fullmatch(self.origin):
            raise InvalidMedia("not a valid server name")
        if not _MEDIA_ID.fullmatch(self.media_id):
            raise InvalidMedia("not a valid media ID")

    @classmethod
    def from_mxc(cls, uri: str) -> Self:
        """Parse `mxc://origin/media_id`; raises InvalidMedia."""
        scheme, _, rest = uri.partition("://")
        origin, slash, media_id = rest.partition("/")
        if scheme != "mxc" or not slash:
            raise InvalidMedia("not a valid mxc:// URI")
        return cls(origin, media_id)

    def __str__(self) -> str:
        return f"mxc://{self.origin}/{self.media_id}"


class Progress(Protocol):
    """How many bytes a reader has taken so far."""

    taken: int


class Room(Protocol):
    """The part of the memory budget that a body lives in (`admission.Reservation`)."""

    def shrink(self, size: int) -> None:
        """The body turned out to need only `size` bytes."""
        ...

    def close(self) -> None:
        """The body is gone."""
        ...

    def lend(self, cut: Callable[[], None]) -> AbstractContextManager[Progress]:
        """The body goes out to a reader, who may be `cut` when too slow."""
        ...


class Body:
    """Complete media bytes in a sealed memory file, inside a share of the memory budget.

    Reference-counted: the maker holds one reference, `retain` adds one, and the last `release` closes
    the file and gives the share back. `size` is in bytes, `sha256` is the digest.
    """

    __slots__ = ("_fd", "_references", "content_type", "disposition", "room", "sha256", "size")

    def __init__(
        self,
        fd: int,
        size: int,
        sha256: bytes,
        room: Room | None,
        content_type: str = "application/octet-stream",
        disposition: str | None = None,
    ) -> None:
        self._fd = fd
        self.room = room
        self._references = 1
        self.size = size
        self.sha256 = sha256
        self.content_type = content_type
        self.disposition = disposition

    def retain(self) -> Self:
        """One more holder; each must `release` once."""
        if self._references < 1:
            raise RuntimeError("a closed body cannot be retained")
        self._references += 1
        return self

    def release(self) -> None:
        """One holder less."""
        self._references -= 1
        if self._references == 0:
            free(self._fd, self.size, self.room)
            self._fd = -1

    def fileno(self) -> int:
        """Our own descriptor, for whoever reads at explicit offsets; others get it `reopened`."""
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        return os.pread(self._fd, length, offset)


class BodyWriter:
    """Collects the pieces of a body as they arrive, hashing them on the way.

    It owns `room` from the start: where no memory file can be had, the room is given back.
    """

    __slots__ = ("_fd", "_hash", "_room", "size")

    def __init__(self, room: Room | None = None) -> None:
        self._hash = hashlib.sha256()
        self._room = room
        self.size = 0
        try:
            self._fd = memory_file()
        except Unavailable:
            self._give_room_back()
            raise

    def write(self, piece: Bytes) -> None:
        """Append `piece`."""
        self._hash.update(piece)
        _append(self._fd, piece)
        self.size += len(piece)

    async def write_in_steps(self, piece: Bytes) -> None:
        """Append a piece that may be large enough to hold the event loop."""
        for offset in range(0, len(piece), STEP):
            if offset:
                await asyncio.sleep(0)
            self.write(memoryview(piece)[offset : offset + STEP])

    def seal(self, content_type: str = "application/octet-stream", disposition: str | None = None) -> Body:
        """The complete body; the writer is used up. `content_type` and `disposition` are as declared."""
        seal(self._fd)
        if self._room is not None:
            self._room.shrink(self.size)
        fd, self._fd = self._fd, -1
        return Body(fd, self.size, self._hash.digest(), self._room, content_type, disposition)

    def discard(self) -> None:
        """Give everything back, unless a body has it."""
        if self._fd != -1:
            free(self._fd, self.size, self._room)
            self._fd = -1

    def _give_room_back(self) -> None:
        if self._room is not None:
            self._room.close()


class Sample:
    """What engines see of a body: the plaintext, where a key came with it.

    Making one verifies the ciphertext's hash, so that a tampered body never becomes a sample. For an
    encrypted one `read`, `head` and `as_file` work only inside `opened`. A `keyless` one may be a
    ciphertext whose key nobody gave us: that no engine finds anything in it does not make it clean.
    """

    __slots__ = ("_digest", "_key", "_plaintext", "body", "keyless", "size")

    def __init__(self, body: Body, key: AttachmentKey | None = None, *, keyless: bool = False) -> None:
        if key is not None:
            key.check(body.size, body.sha256)
        self.body = body
        self.keyless = keyless
        self.size = body.size
        self._key = key
        self._plaintext: int | None = None
        self._digest: bytes | None = None

    @property
    def encrypted(self) -> bool:
        """Whether the body is ciphertext that we hold the key of."""
        return self._key is not None

    async def digest(self) -> bytes:
        """SHA-256 of the plaintext, computed once, in steps that do not hold the event loop."""
        if self._key is None:
            return self.body.sha256
        if self._digest is None:
            sha256 = hashlib.sha256()
            async for piece in _decrypted(self.body, self._key):
                sha256.update(piece)
            self._digest = sha256.digest()
        return self._digest

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold the plaintext in a sealed memory file; only while a scan slot is held."""
        if self._key is None:
            yield
            return
        fd = memory_file()
        try:
            async for piece in _decrypted(self.body, self._key):
                _append(fd, piece)
            seal(fd)
            self._plaintext = fd
            yield
        finally:
            self._plaintext = None
            free(fd, self.size)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        return os.pread(self._fileno(), length, offset)

    def head(self, length: int) -> bytes:
        """The first `length` bytes, or fewer."""
        return self.read(0, length)

    def as_file(self) -> AbstractContextManager[int]:
        """A fresh read-only descriptor of the sealed file."""
        return reopened(self._fileno())

    def own_file(self) -> int:
        """As `as_file`, for the caller to close: a thread may take longer than the sample is there."""
        return _reopen(self._fileno())

    def _fileno(self) -> int:
        if self._key is None:
            return self.body.fileno()
        if self._plaintext is None:
            raise RuntimeError("an encrypted sample must be opened first")
        return self._plaintext


async def _decrypted(body: Body, key: AttachmentKey) -> AsyncIterator[memoryview]:
    """The plaintext step by step, each in the place of the last, letting others run in between."""
    decryptor = key.decryptor()
    scratch = memoryview(bytearray(min(STEP, body.size)))
    for offset in range(0, body.size, STEP):
        if offset:
            await asyncio.sleep(0)
        ciphertext = body.read(offset, STEP)
        plaintext = scratch[: len(ciphertext)]
        decryptor.decrypt_into(ciphertext, plaintext)
        yield plaintext


def memory_file() -> int:
    """A new, empty, sealable memory file; a descriptor. Raises Unavailable."""
    try:
        return os.memfd_create("media", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        raise Unavailable("too many files are open, try again", "overload") from None


def _append(fd: int, piece: Bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(fd, rest) :]


def free(fd: int, size: int, room: Room | None = None) -> None:
    """Close a memory file, then its room.

    Freeing 20 MB takes the kernel 2 ms and more, which are not the event loop's. Nor does it wait for a
    thread of whoever has work for a disk that does not answer.
    """
    try:
        loop = asyncio.get_running_loop() if size > STEP else None
    except RuntimeError:
        loop = None
    if loop is None:
        os.close(fd)
        if room is not None:
            room.close()
        return
    closing = loop.run_in_executor(_FREEING, os.close, fd)
    if room is not None:
        closing.add_done_callback(lambda _: room.close())


def seal(fd: int) -> None:
    """From here on nobody can change the file, we included."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def _reopen(fd: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def reopened(fd: int) -> Iterator[int]:
    """The same file through a new read-only descriptor."""
    fresh = _reopen(fd)
    try:
        yield fresh
    finally:
        os.close(fresh)
