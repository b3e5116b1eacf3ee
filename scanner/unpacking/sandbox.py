"""A process gives everything up: files, network, other processes, and most of the system's calls.

Two walls: limits, which every kernel has, and a list of the few calls that reading needs (seccomp), where
libseccomp and the kernel allow it. A call that is not on the list fails with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any, Protocol

# What a reader may need beside the container: PPMd as 7-Zip uses it at most takes 192 MiB, xz -9 64 MiB.
_MEMORY = 256 * 1024 * 1024
# prctl.h
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 1, 4, 38

# Memory, messages, memory files, and the end: not one of them takes a path, or reaches another process.
_CALLS = (
    *("brk", "mremap", "munmap", "madvise"),
    *("sendmsg", "recvmsg", "memfd_create", "write", "close"),
    *("futex", "clock_gettime", "setitimer", "rt_sigreturn", "restart_syscall", "exit", "exit_group"),
)
# And these in one form: `fcntl` could have the kernel send signals to others, `mmap` could bring in code.
_FCNTL_COMMAND, _MMAP_PROTECTION = 1, 2
# All of our user's that are on their way count against it, so that it must not be close.
_DESCRIPTORS = 256

_libc = ctypes.CDLL(None, use_errno=True)


class Filter(Protocol):
    """System calls that are allowed; made once, for whoever calls `load`."""

    def load(self) -> None:
        """From here on it holds for this process."""
        ...


def filter_of_calls() -> Filter | None:
    """The list of calls, None where there is no libseccomp or it cannot say them."""
    try:
        import pyseccomp  # noqa: PLC0415  # it looks for the library when it is imported

        calls: Any = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
        for call in _CALLS:
            calls.add_rule(pyseccomp.ALLOW, call)
        seals = pyseccomp.Arg(_FCNTL_COMMAND, pyseccomp.EQ, fcntl.F_ADD_SEALS)
        calls.add_rule(pyseccomp.ALLOW, "fcntl", seals)
        no_code = pyseccomp.Arg(_MMAP_PROTECTION, pyseccomp.MASKED_EQ, mmap.PROT_EXEC, 0)
        calls.add_rule(pyseccomp.ALLOW, "mmap", no_code)
    except (ImportError, RuntimeError, OSError):
        return None
    filtering: Filter = calls
    return filtering


def end_with_parent() -> None:
    """Die when the thread that started this process does, even stopped; nobody may look into its memory."""
    _control(_SET_DEATH_SIGNAL, signal.SIGKILL)
    _control(_SET_DUMPABLE, 0)


def be_first_to_go() -> None:
    """Where memory runs out, the kernel ends this process and its children first, if we may ask for that."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def confine(calls: Filter | None, seconds: float, largest: int) -> None:
    """For good; with so many seconds of the processor's time, and files of up to `largest` bytes."""
    memory = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    _limit(resource.RLIMIT_AS, memory + _MEMORY)
    _limit(resource.RLIMIT_CPU, ceil(seconds))
    _limit(resource.RLIMIT_FSIZE, largest)
    _limit(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _control(_SET_DUMPABLE, 0)
    _control(_SET_NO_NEW_PRIVILEGES, 1)
    if calls is not None:
        calls.load()


def end_after(seconds: float) -> None:
    """Die then, if nobody is left who would see to it; 0 is never."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bound, bound))


def _control(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
