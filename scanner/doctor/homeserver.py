"""The homeserver as the service sees it: there, new enough, and with limits and a clock like ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

from scanner.doctor.finding import Notes
from scanner.doctor.http import Client, NoAnswer, Reply, session
from scanner.doctor.words import duration, size
from scanner.errors import ConfigError
from scanner.tls import trusting

_KEY = "homeserver.url"
_VERSIONS = "/_matrix/client/versions"
# The one that needs a token wherever it exists: MSC3916, Matrix 1.11.
_MEDIA_CONFIG = "/_matrix/client/v1/media/config"
_OLD_MEDIA_CONFIG = "/_matrix/media/v3/config"
_CLOCK_SKEW = 60.0


@dataclass(frozen=True, slots=True)
class Homeserver:
    """Where it is and how to reach it; `media_size` is our own limit, in bytes."""

    url: str
    media_size: int
    ca_file: Path | None = None
    proxy: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    access_token: str | None = field(default=None, repr=False)


async def examine(notes: Notes, homeserver: Homeserver) -> None:
    """Everything that can be known without media of one's own."""
    notes.subject = homeserver.url
    try:
        trust = None if homeserver.ca_file is None else trusting(homeserver.ca_file, "homeserver.ca_file")
    except ConfigError as problem:
        notes.failed("certificates", problem.info, "correct homeserver.ca_file")
        return
    async with session(trust, homeserver.headers) as opened:
        client = Client(opened, homeserver.url, _KEY, homeserver.proxy)
        try:
            await _ask(notes, client, homeserver)
        except NoAnswer as problem:
            notes.failed("answers", problem.found, problem.advice)


async def _ask(notes: Notes, client: Client, homeserver: Homeserver) -> None:
    reply = await client.get(_VERSIONS)
    if not _note_answer(notes, reply):
        return
    _note_clock(notes, reply)
    _note_authenticated_media(notes, await client.get(_MEDIA_CONFIG))
    await _upload_limit(notes, client, homeserver)


def _note_answer(notes: Notes, reply: Reply) -> bool:
    if reply.status == 200 and isinstance(reply.content.get("versions"), list):
        software = reply.headers.get("Server", "an unnamed server").partition(" ")[0]
        notes.ok("answers", f"{software[:60]}, within {reply.seconds * 1000:.0f} ms")
        return True
    if 300 <= reply.status < 400:
        target = reply.headers.get("Location", "nowhere")
        found = f"redirects {_VERSIONS} to {target[:200]}"
        notes.failed("answers", found, f"put the homeserver's own address into {_KEY}")
    elif reply.status >= 500:
        notes.failed(
            "answers", f"answers {reply.status}", "look at the log of the homeserver, or of its proxy"
        )
    else:
        found = f"is no homeserver: answers {reply.status} to {_VERSIONS}"
        notes.failed("answers", found, f"correct {_KEY}: it has no path and leads to the homeserver itself")
    return False


def _note_clock(notes: Notes, reply: Reply) -> None:
    try:
        theirs = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        notes.skipped("clock", "the homeserver does not tell the time")
        return
    ahead = theirs - (reply.asked_at + reply.seconds)
    if abs(ahead) > _CLOCK_SKEW:
        found = f"the homeserver's is {duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} ours"
        notes.warning("clock", found, "have NTP set both clocks")
    else:
        notes.ok("clock", f"within {_CLOCK_SKEW:.0f} s of the homeserver's")


def _note_authenticated_media(notes: Notes, reply: Reply) -> None:
    name, code = "authenticated media", reply.content.get("errcode")
    if reply.status == 401:
        notes.ok(name, "asks for a token")
    elif reply.status == 404 or code == "M_UNRECOGNIZED":
        found = "not there: clients with a token would get no media"
        notes.failed(name, found, "upgrade the homeserver: it needs Matrix 1.11 (Synapse 1.111)")
    elif reply.status == 200:
        notes.warning(name, "asks for no token", "see whether a proxy in between adds one for everybody")
    else:
        notes.warning(
            name, f"answers {reply.status} without a token, not 401", "look at the homeserver's log"
        )


async def _upload_limit(notes: Notes, client: Client, homeserver: Homeserver) -> None:
    name, token = "upload limit", homeserver.access_token
    if token is None:
        notes.skipped(name, "is told to users only", "give any user's token with --access-token-file")
        return
    reply = await client.get(_MEDIA_CONFIG, token)
    if reply.status == 404:
        reply = await client.get(_OLD_MEDIA_CONFIG, token)
    limit = reply.content.get("m.upload.size")
    if reply.status == 401:
        notes.failed(name, "the access token is refused", "put a valid one into the file")
    elif reply.status != 200:
        notes.failed(name, f"answers {reply.status}", "look at the homeserver's log")
    elif not isinstance(limit, int):
        notes.skipped(name, "the homeserver has none, or does not tell")
    else:
        _note_limit(notes, limit, homeserver.media_size)


def _note_limit(notes: Notes, limit: int, ours: int) -> None:
    if limit > ours:
        found = f"users may upload {size(limit)}, and cannot get back more than {size(ours)}"
        notes.warning("upload limit", found, "give limits.media_size and the homeserver's limit one value")
    else:
        notes.ok("upload limit", f"{size(limit)}, within our {size(ours)} (limits.media_size)")
