"""The epoch of all verdicts: a number in `state_dir`, which `verdict forget --all` raises.

It is part of the version of the clamav engine. A raised one makes all that is remembered, on disk and in the
memory of a service that runs, a verdict of other engines than those in force: nothing has to be deleted.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import NoReturn

from scanner.errors import ConfigError

_NAME = "verdict-epoch"
_INTERVAL = 1.0
_MAX_DIGITS = 20


class Epoch:
    """`current` is the epoch as last seen, 0 before any was raised. Raises ConfigError if unreadable."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _NAME
        self.current = self._read()

    async def follow(self) -> NoReturn:
        """Notice within a second or two that it was raised."""
        while True:
            await asyncio.sleep(_INTERVAL)
            with suppress(ConfigError):
                self.current = max(self.current, await asyncio.to_thread(self._read))

    def advance(self) -> None:
        """Raise it, for every service with this `state_dir`. Raises ConfigError."""
        raised = max(self._read() + 1, int(time.time()))
        draft = self._path.with_name(f".{_NAME}.{token_hex(8)}")
        try:
            draft.write_text(f"{raised}\n")
            draft.chmod(0o644)  # no secret, and whoever runs this may not be the service's user
            draft.replace(self._path)
        except OSError as error:
            raise ConfigError(f"state_dir: {self._path}: {error.strerror}") from None
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        self.current = raised

    def _read(self) -> int:
        try:
            text = self._path.read_bytes().strip()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise ConfigError(f"state_dir: {self._path}: {error.strerror}") from None
        if not text.isdigit() or len(text) > _MAX_DIGITS:
            raise ConfigError(f"state_dir: {self._path}: no number; delete it")
        return int(text)
