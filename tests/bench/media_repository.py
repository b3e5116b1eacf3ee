"""A media repository for the benchmark: from memory, a process of its own, cheaper than what it feeds.

    .venv/bin/python -m tests.bench.media_repository PORT FOLDER BASE...

It serves GET and HEAD of /_matrix/media/{v3,r0}/{download,thumbnail}/... to everybody and of
/_matrix/client/v1/media/... to who has the token; `/stats` and `/reset` are for the benchmark.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from tests.bench.corpus import Corpus, Variant

TOKEN = "bench-token"

_REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found"}
_JOINED = 65536  # bytes: smaller bodies go out in one piece with their head
_MEDIA_PATHS = (["_matrix", "media", "v3"], ["_matrix", "media", "r0"], ["_matrix", "client", "v1", "media"])


class Answer(NamedTuple):
    status: int
    mime: str
    body: bytes
    tail: bytes = b""

    def head(self, *, close: bool) -> bytes:
        disposition = 'Content-Disposition: attachment; filename="file"\r\n' if self.status == 200 else ""
        return (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\nContent-Type: {self.mime}\r\n"
            f"Content-Length: {len(self.body) + len(self.tail)}\r\n{disposition}"
            f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n"
        ).encode()


def _json(status: int, content: object) -> Answer:
    return Answer(status, "application/json", json.dumps(content).encode())


def _refusal(status: int, code: str) -> Answer:
    return _json(status, {"errcode": code, "error": _REASONS[status]})


class Repository:
    """What is asked and answered; knows no connection."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._fetched = Counter[str]()

    def answer(self, method: str, path: str, headers: bytes) -> Answer:
        match path:
            case "/stats":
                return _json(200, self._stats())
            case "/reset":
                self._fetched.clear()
                return _json(200, {})
            case "/_matrix/client/versions":
                return _json(200, {"versions": ["v1.11"]})
            case _:
                return self._media(method, path, headers)

    def _stats(self) -> dict[str, float]:
        """Since the last reset; `cpu_s` since the start."""
        return {
            "fetches": self._fetched.total(),
            "distinct": len(self._fetched),
            "cpu_s": time.process_time(),
        }

    def _media(self, method: str, path: str, headers: bytes) -> Answer:
        parts = path.strip("/").split("/")
        prefix = next((each for each in _MEDIA_PATHS if parts[: len(each)] == each), None)
        if prefix is None or len(parts) < len(prefix) + 3:
            return _refusal(404, "M_UNRECOGNIZED")
        if "client" in prefix and f"Bearer {TOKEN}" != header(headers, b"authorization"):
            return _refusal(401, "M_UNKNOWN_TOKEN")
        media = parts[len(prefix) + 2]
        try:
            variant = self._corpus.find(media)
        except KeyError:
            return _refusal(404, "M_NOT_FOUND")
        if method == "GET":
            self._fetched[media] += 1
        return _found(variant)


def _found(variant: Variant) -> Answer:
    mime = "application/octet-stream" if variant.encrypted else variant.base.mime
    return Answer(200, mime, *variant.content())


def header(headers: bytes, name: bytes) -> str:
    """Of the lines of a request; "" where it is not there."""
    for line in headers.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().decode("latin1")
    return ""


class Connection(asyncio.Protocol):
    """HTTP/1.1 with requests that have no body."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        line, _, headers = head.partition(b"\r\n")
        method, target, _ = line.decode("latin1").split(" ", 2)
        close = header(headers, b"connection").lower() == "close"
        answer = self._repository.answer(method, target.partition("?")[0], headers)
        self._send(answer.head(close=close), *(() if method == "HEAD" else (answer.body, answer.tail)))
        if close:
            self._transport.close()

    def _send(self, *pieces: bytes) -> None:
        if sum(map(len, pieces)) < _JOINED:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)


async def serve(port: int, corpus: Corpus) -> None:
    """Until the process ends."""
    repository = Repository(corpus)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(repository), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    port, folder, *names = sys.argv[1:]
    corpus = Corpus(Path(folder))
    corpus.prepare(names)
    uvloop.run(serve(int(port), corpus))


if __name__ == "__main__":
    main()
