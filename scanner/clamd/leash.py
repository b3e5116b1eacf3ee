"""A child process that never outlives us, not even when we are killed.

The leash is a pipe whose write end only we hold. A watcher in the child's own process group reads it, and
kills that group when it ends: no process ID is ever guessed, and a group's is given to nobody else while the
watcher is in it. (PR_SET_PDEATHSIG is not enough: the kernel clears it when a program enters its AppArmor
profile, and it follows the thread that forked.)
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from scanner.readable import readable

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST_LINE = 64 * 1024

# Standard input is the leash: a line when we are done, just an end when we died. The shell becomes the
# program, so its process ID is the child's.
_SCRIPT = """
leavings=$1
shift
ulimit -c 0
umask 077
exec 3<&0 </dev/null
{
    read -r _ || { kill -KILL $$; [ -z "$leavings" ] || rm -rf "$leavings"/*; }
    kill -KILL 0
} <&3 3<&- >/dev/null 2>&1 &
exec "$@" 3<&-
"""


class LeashedProcess:
    """A running program in a session of its own, without core dumps; raises OSError where it cannot start.

    Both its output streams go to `output`, by default a pipe to be read from `log`. What it writes to the
    directory `leavings` is removed when we die; otherwise that is the caller's to do. Whoever makes one
    calls `kill` or `end` once. Not asyncio's own subprocess: uvloop leaks descriptors into its children.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        output: int | IO[bytes] = subprocess.PIPE,
        leavings: Path | None = None,
    ) -> None:
        end, self._leash = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "sh", str(leavings or ""), *command],
                stdin=end,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._leash)
            raise
        finally:
            os.close(end)

    @property
    def pid(self) -> int:
        """Of the program itself."""
        return self._process.pid

    @property
    def log(self) -> IO[bytes] | None:
        """What it writes, where that is a pipe."""
        return self._process.stdout

    async def lines(self) -> AsyncIterator[str]:
        """What it writes to the pipe, line by line, to the end; once. A line over 64 KiB is left out."""
        rest = b""
        while piece := await self._piece():
            *ended, rest = (rest + piece).split(b"\n")
            for line in filter(_is_short, ended):
                yield _text(line)
            rest = rest[: _LONGEST_LINE + 1]  # too long, whatever follows
        if rest and _is_short(rest):
            yield _text(rest)

    async def _piece(self) -> bytes:
        if self.log is None:
            return b""
        await readable(self.log.fileno())
        return os.read(self.log.fileno(), _LONGEST_LINE)

    def poll(self) -> int | None:
        """Its exit status (negative: the signal that killed it), None while it runs."""
        return self._process.poll()

    async def wait(self) -> int:
        """Wait for its end; the exit status."""
        while (status := self.poll()) is None:  # noqa: ASYNC110  # another process's event
            await asyncio.sleep(0.02)
        return status

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    async def end(self, grace: float) -> None:
        """Ask it to end, and kill it when it still runs after `grace` seconds."""
        try:
            self.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self.wait()
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it and pull the leash: nothing of it is left, no zombie either."""
        self._process.kill()
        with suppress(BrokenPipeError):
            os.write(self._leash, b"\n")
        os.close(self._leash)
        self._process.wait()
        if self.log is not None:
            self.log.close()
        # Where we are process 1, as in a container, the orphaned watcher is ours to reap.
        with suppress(ChildProcessError):
            os.waitpid(-self.pid, 0)


def find_program(name: str) -> str | None:
    """Its path; Debian has daemons in /usr/sbin, which is not in everybody's PATH."""
    return shutil.which(name) or shutil.which(name, path=PATH)


def _is_short(line: bytes) -> bool:
    return len(line) <= _LONGEST_LINE


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip()
