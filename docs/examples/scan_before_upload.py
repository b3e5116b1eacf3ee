"""Encrypt a file as for an encrypted room, have it scanned, and only then upload it.

Prints the `file` of the event to send. HOMESERVER and SCANNER (URLs) and ACCESS_TOKEN are in the environment;
aiohttp, cryptography and vodozemac are installed.
"""

import asyncio
import json
import os
import sys
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import vodozemac
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

UPLOAD = os.environ["HOMESERVER"] + "/_matrix/media/v3/upload"
SCANNER = os.environ["SCANNER"] + "/_matrix/media_proxy/unstable"
TRIES = 4
AGAIN_LATER = (408, 429, 502, 503, 504)
OCTETS = {"Content-Type": "application/octet-stream"}


def encrypt(plaintext: bytes) -> tuple[bytes, dict[str, Any]]:
    """Ciphertext and `EncryptedFile`, without its `url`: the Matrix spec, "Sending encrypted attachments"."""
    key, iv = os.urandom(32), os.urandom(8) + bytes(8)  # the low half of the counter must start at 0
    ciphertext = Cipher(AES(key), CTR(iv)).encryptor().update(plaintext)
    jwk = {"kty": "oct", "alg": "A256CTR", "ext": True, "key_ops": ["encrypt", "decrypt"]}
    jwk["k"] = urlsafe_b64encode(key).decode().rstrip("=")
    return ciphertext, {
        "v": "v2",
        "key": jwk,
        "iv": unpadded(iv),
        "hashes": {"sha256": unpadded(sha256(ciphertext).digest())},
    }


def seal(content: object, public_key: str) -> dict[str, str]:
    """`content` as JSON that the scanner alone can read, and no proxy on the way."""
    key = vodozemac.Curve25519PublicKey.from_base64(public_key)
    sealed = vodozemac.PkEncryption.from_key(key).encrypt(json.dumps(content).encode())
    parts = {"ephemeral": sealed.ephemeral_key, "ciphertext": sealed.ciphertext, "mac": sealed.mac}
    return {name: unpadded(part) for name, part in parts.items()}


def unpadded(raw: bytes) -> str:
    """Base64 as Matrix has it."""
    return b64encode(raw).decode().rstrip("=")


async def scan(session: aiohttp.ClientSession, ciphertext: bytes, file: dict[str, Any]) -> str | None:
    """Why the file must not be sent; None if it may. Asks again where that helps."""
    for _ in range(TRIES):
        async with session.get(f"{SCANNER}/public_key", raise_for_status=True) as answer:
            public_key = (await answer.json())["public_key"]
        info = json.dumps({"encrypted_body": seal({"file": file}, public_key)})
        form = aiohttp.FormData()
        form.add_field("file", info, content_type="application/json")
        form.add_field("body", BytesIO(ciphertext), filename="file", content_type=OCTETS["Content-Type"])
        async with session.post(f"{SCANNER}/scan_file", data=form) as answer:
            ours = answer.content_type == "application/json"  # a proxy's error is a page
            told = await answer.json() if ours else {}
        if answer.status == 200 and told.get("clean") is True:
            return None
        if answer.status in AGAIN_LATER:
            await asyncio.sleep(min(30, int(answer.headers.get("Retry-After", 5))))
        elif told.get("reason") != "MCS_BAD_DECRYPTION":  # the scanner's key changed: seal to the new one
            return str(told.get("info", f"the scanner answered {answer.status}"))
    return "it could not be scanned, try again later"


async def main(name: str, plaintext: bytes) -> str | None:
    """Scan and upload `plaintext`; why not, if not."""
    headers = {"Authorization": f"Bearer {os.environ['ACCESS_TOKEN']}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        ciphertext, file = encrypt(plaintext)
        refusal = await scan(session, ciphertext, file)
        if refusal is not None:
            return f"{name} was not sent: {refusal}"
        async with session.post(
            UPLOAD, data=BytesIO(ciphertext), headers=OCTETS, raise_for_status=True
        ) as answer:
            file["url"] = (await answer.json())["content_uri"]
    print(json.dumps(file))
    return None


path = Path(sys.argv[1])
sys.exit(asyncio.run(main(path.name, path.read_bytes())))
