"""Signs how long the audit chain is, every five minutes, and notices what is missing from it.

A head that stands in the log as well, which is kept elsewhere, shows that the end of the chain was cut off
(`media-scanner audit verify --head`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from scanner.crypto.signing import format_public_key
from scanner.errors import StoreError
from scanner.events import AuditBroken, AuditSigned, Publish, QuarantineFailed
from scanner.quarantine.chain import Chain, Tail

_INTERVAL = 300.0


class Notary:
    """For one scanner's `chain`; `public_key` is that of its signatures. `run` it in the background.

    `wanted` says whether there is a chain at all: without analysts the store need not let us read.
    """

    def __init__(
        self, chain: Chain, public_key: bytes, publish: Publish, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        self._chain = chain
        self._public_key = format_public_key(public_key)
        self._publish = publish
        self._wanted = wanted
        self._signed = Tail()

    async def run(self, interval: float = _INTERVAL) -> NoReturn:
        """Until cancelled."""
        while True:
            try:
                if self._wanted():
                    await self.look()
            except StoreError as problem:
                self._publish(QuarantineFailed(self._chain.store, "audit head", problem.info))
            await asyncio.sleep(interval)

    async def look(self) -> None:
        """Sign the last record, if it is another than before. Raises StoreError."""
        if self._signed.number and not await self._chain.still_has(self._signed):
            self._publish(AuditBroken(self._signed.number, self._signed.sha256))
            self._signed = Tail()
        tail = await self._chain.tail()
        if tail != self._signed and tail.number:
            head = await self._chain.sign_head(tail)
            self._publish(
                AuditSigned(head.number, head.sha256, head.at, head.author, head.signature, self._public_key)
            )
            self._signed = tail
