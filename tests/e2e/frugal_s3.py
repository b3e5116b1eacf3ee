"""An S3 server that takes everything and keeps nothing, for measurements: it costs next to nothing.

`python -m tests.e2e.frugal_s3 PORT`
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

_STORED = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n'
_NOTHING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
_ABSENT = b"<Error><Code>NoSuchKey</Code></Error>"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"PUT"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * (b"100-continue" in head))
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(_STORED)
            else:
                writer.write(_xml(b"200 OK", _NOTHING) if b"list-type" in head else _xml(b"404 No", _ABSENT))
    writer.close()


def _xml(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
