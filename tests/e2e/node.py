"""The client libraries in `clients/`, run by node: one short program per library, JSON in and out."""

from __future__ import annotations

import base64
import fcntl
import json
import subprocess
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.synapse import User

_CLIENTS = Path(__file__).parent / "clients"
_MANIFEST = _CLIENTS / "package.json"
_INSTALLED = _CLIENTS / "node_modules" / ".package-lock.json"
_TSC = _CLIENTS / "node_modules" / ".bin" / "tsc"
# Without scripts: one package would download a native module that nothing here uses.
# package.json holds sanitize-html back: newer ones want to require ES modules, which Debian 12's node cannot.
_INSTALL = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]


@dataclass(frozen=True)
class Attachment:
    """What a client uploads, and what it puts into the event; `info` lacks only the `url`."""

    ciphertext: bytes
    info: dict[str, Any]

    def at(self, mxc: str) -> dict[str, Any]:
        """The `EncryptedFile` of the event, once uploaded."""
        return {**self.info, "url": mxc}


def install() -> None:
    """Install the libraries, unless that is done; safe where several test processes start at once."""
    with _MANIFEST.open() as manifest:
        fcntl.flock(manifest, fcntl.LOCK_EX)
        if not _INSTALLED.exists() or _INSTALLED.stat().st_mtime < _MANIFEST.stat().st_mtime:
            subprocess.run(_INSTALL, cwd=_CLIENTS, check=True)


async def encrypt(path: str, plaintext: bytes) -> Attachment:
    """By matrix-encrypt-attachment, on its `node` or its `webcrypto` path."""
    answer = await _run("attachment", operation="encrypt", path=path, data=_base64(plaintext))
    return Attachment(base64.b64decode(answer["data"]), answer["info"])


async def decrypt(path: str, attachment: Attachment) -> bytes:
    """By matrix-encrypt-attachment, which checks the hash."""
    data = _base64(attachment.ciphertext)
    answer = await _run("attachment", operation="decrypt", path=path, data=data, info=attachment.info)
    return base64.b64decode(answer["data"])


async def seal(public_key: str, message: str) -> dict[str, str]:
    """An `encrypted_body` by libolm."""
    return dict(await _run("seal", public_key=public_key, message=message))


async def pickle(pickle_key: str) -> tuple[str, str]:
    """The pickle of a new PkDecryption of libolm, as the Node scanner writes it, and its public key."""
    answer = await _run("pickle", pickle_key=pickle_key)
    return str(answer["pickle"]), str(answer["public_key"])


async def content_scanner(url: str, user: User, method: str, argument: object) -> dict[str, Any]:
    """A call of MatrixContentScannerClient: `result` and `body` of a download, or `error`."""
    return dict(await _run("content_scanner", url=url, token=user.token, method=method, argument=argument))


async def compile_typescript(source: Path, directory: Path) -> Path:
    """Check the types of `source` strictly; the JavaScript that it becomes, in `directory`."""
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
    command = [str(_TSC), *options, "--outDir", str(directory), source.name]
    compiler = await create_subprocess_exec(*command, cwd=source.parent, stdout=PIPE)
    output, _ = await compiler.communicate()
    assert compiler.returncode == 0, output.decode()
    return directory / source.with_suffix(".js").name


async def scan_and_upload(
    module: Path, scanner: str, homeserver: str, user: User, data: bytes
) -> dict[str, Any]:
    """A call of docs/examples/scan-before-upload.ts, compiled: `file` or `refused`."""
    servers = {"scanner": scanner, "homeserver": homeserver, "accessToken": user.token}
    return await _run("scan_before_upload", module=str(module), servers=servers, data=_base64(data))


async def _run(driver: str, **question: object) -> dict[str, Any]:
    process = await create_subprocess_exec("node", str(_CLIENTS / f"{driver}.cjs"), stdin=PIPE, stdout=PIPE)
    output, _ = await process.communicate(json.dumps(question).encode())
    assert process.returncode == 0, f"{driver}.cjs failed"
    answer: dict[str, Any] = json.loads(output)
    return answer


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
