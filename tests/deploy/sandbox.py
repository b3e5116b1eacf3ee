"""Runs a program as systemd would confine it: `python sandbox.py UNIT PROGRAM ARGUMENT...`.

Of the unit's settings those that can break a program unseen: SystemCallFilter, RestrictAddressFamilies,
MemoryDenyWriteExecute and NoNewPrivileges. Stricter than the unit, a call that the filter does not allow
kills the process instead of failing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_NOT_SUPPORTED = 0x00050000 | errno.EAFNOSUPPORT
_EQUAL = 4
_FAMILIES = range(1, 46)
_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN = 65, 1


class Comparison(ctypes.Structure):
    """libseccomp's struct scmp_arg_cmp."""

    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    ]


def settings(unit: Path, key: str) -> list[str]:
    """The values of every line `key=`."""
    lines = (line.partition("=") for line in unit.read_text().splitlines())
    return [value for name, _, value in lines if name == key]


def allowed_calls(unit: Path) -> set[str]:
    """The system calls of its filter: those of lines without ~, less those of lines with it."""
    allowed = set(_members("@default"))
    for line in settings(unit, "SystemCallFilter"):
        names = {call for word in line.removeprefix("~").split() for call in _members(word)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def _members(word: str) -> Iterator[str]:
    if not word.startswith("@"):
        yield word
        return
    printed = subprocess.check_output(["systemd-analyze", "syscall-filter", word], text=True)
    for line in printed.splitlines()[1:]:
        if not line.strip().startswith("#"):
            yield from _members(line.strip())


def confine(unit: Path) -> None:
    """Put the filters of `unit` on the calling process, for good."""
    libc, seccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    if settings(unit, "MemoryDenyWriteExecute") == ["yes"]:
        status = libc.prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
        assert status == 0 or ctypes.get_errno() == errno.EINVAL, "kernels before 6.3 know no such thing"
    _load(seccomp, _ALLOW, [(_NOT_SUPPORTED, "socket", (family,)) for family in _refused_families(unit)])
    _load(seccomp, _KILL, [(_ALLOW, call, ()) for call in allowed_calls(unit)])


def _refused_families(unit: Path) -> list[int]:
    [names] = settings(unit, "RestrictAddressFamilies")
    return sorted(set(_FAMILIES) - {getattr(socket, name) for name in names.split()})


def _load(seccomp: ctypes.CDLL, default: int, rules: list[tuple[int, str, tuple[int, ...]]]) -> None:
    """Loading sets NoNewPrivileges."""
    context = ctypes.c_void_p(seccomp.seccomp_init(default))
    for action, call, values in rules:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        comparisons = (Comparison * len(values))(*(Comparison(0, _EQUAL, value, 0) for value in values))
        if number >= 0:  # else another machine's
            status = seccomp.seccomp_rule_add_array(context, action, number, len(values), comparisons)
            assert status == 0, f"{call}: {os.strerror(-status)}"
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    unit_file, *command = sys.argv[1:]
    confine(Path(unit_file))
    os.execvp(command[0], command)  # noqa: S606  # no shell is what we want
