"""A template whose children do what their container says, instead of reading it; a process of its own.

The container is the name of a function below. What it returns comes back as the content of a member.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator

from scanner.containers.readers import Reader
from scanner.unpacking import child, rehearsal, template
from scanner.unpacking.entry import Entry
from scanner.unpacking.protocol import Done, Failed, Found, encode
from scanner.unpacking.sandbox import Filter

_SERVICE = 4
_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH = 16


def main() -> None:
    rehearse = rehearsal.rehearse

    def rehearse_and_change(fork: rehearsal.Fork, calls: Filter | None) -> object:
        done = rehearse(fork, calls)
        child.READERS[Reader.LIBARCHIVE] = _obey
        return done

    rehearsal.rehearse = rehearse_and_change  # type: ignore[assignment]
    template.main()


def _obey(container: memoryview) -> Iterator[Entry]:
    name = bytes(container).decode()
    yield Entry(b"told", (piece for piece in [_PROBES[name]().encode()]))


def refusals() -> str:
    """What a child is not allowed, and in what words."""
    return "\n".join(f"{name}: {_refusal(attempt)}" for name, attempt in _ATTEMPTS.items())


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return os.strerror(error.errno or 0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it was not refused
        return repr(error)
    return "allowed"


def _call(name: str, *arguments: int) -> int:
    result: int = _libc[name](*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result


_ATTEMPTS: dict[str, Callable[[], object]] = {
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "create": lambda: os.open("/tmp/created-by-a-child", os.O_CREAT),
    "list": lambda: os.listdir("/"),  # noqa: PTH208
    "stat": lambda: os.stat("/"),  # noqa: PTH116
    "unlink": lambda: os.unlink("/tmp/created-by-a-child"),  # noqa: PTH108
    "reopen": lambda: os.open("/proc/self/fd/3", os.O_RDONLY),
    "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "local socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "execve": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
    "fork": os.fork,
    "vfork": lambda: _call("vfork"),
    "kill": lambda: os.kill(os.getppid(), 0),
    "signal by pidfd": lambda: os.pidfd_open(1),
    "signal by descriptor": lambda: fcntl.fcntl(_SERVICE, fcntl.F_SETOWN, 1),
    "ptrace": lambda: _call("ptrace", _PTRACE_ATTACH, os.getppid(), 0, 0),
    "memory of others": lambda: _call("process_vm_readv", 1, 0, 0, 0, 0, 0),
    "limits": lambda: _call("prlimit", 0, resource.RLIMIT_AS, 0, 0),
    "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "mprotect": lambda: _call("mprotect", 0, 0, 7),
    "prctl": lambda: _call("prctl", 4, 1, 0, 0, 0),
    "unshare": lambda: _call("unshare", 0x10000000),
    "io_uring": lambda: _call("syscall", 425, 1, 0),
    "bpf": lambda: _call("syscall", 321, 0, 0, 0),
    "chroot": lambda: os.chroot("/"),
    "handler": lambda: _call("sigaction", signal.SIGALRM, 0, 0) or _call("alarm", 0),
}


def spin() -> str:
    while True:
        pass


def sleep() -> str:
    """Without a call that would be refused."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
    return ""


def eat() -> str:
    held = []
    while True:
        held.append(bytearray(2**20))


def eat_little_by_little() -> str:
    held = []
    while True:
        held.append(object())


def crash() -> str:
    ctypes.string_at(0)
    return ""


def fail() -> str:
    raise ZeroDivisionError


def _service() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, _SERVICE)


def _say(datagram: bytes, *passed: int) -> str:
    service = _service()
    socket.send_fds(service, [datagram], passed)
    return sleep()


def _file(size: int, *, sealed: bool) -> int:
    fd = os.memfd_create("lie", os.MFD_ALLOW_SEALING)
    os.write(fd, bytes(size))
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 15)
    return fd


def much() -> str:
    """As much as there is room for, without being asked."""
    _libc.alarm(0)
    service = _service()
    while True:
        fd = _file(2**20, sealed=True)
        socket.send_fds(service, [encode(Found(2**20, 1, b""))], [fd])
        os.close(fd)


_PROBES: dict[str, Callable[[], str]] = {
    "refusals": refusals,
    "spin": spin,
    "sleep": sleep,
    "eat": eat,
    "eat little by little": eat_little_by_little,
    "crash": crash,
    "fail": fail,
    "much": much,
    "nothing": lambda: "",
    "a file that can change": lambda: _say(encode(Found(5, 1, b"")), _file(5, sealed=False)),
    "a file of another size": lambda: _say(encode(Found(5, 1, b"")), _file(6, sealed=True)),
    "an empty file": lambda: _say(encode(Found(0, 1, b"")), _file(0, sealed=True)),
    "a socket as a file": lambda: _say(encode(Found(0, 1, b"")), _SERVICE),
    "no file": lambda: _say(encode(Found(5, 1, b""))),
    "two files": lambda: _say(encode(Found(5, 1, b"")), *2 * [_file(5, sealed=True)]),
    "many files": lambda: _say(encode(Found(5, 1, b"")), *20 * [_file(5, sealed=True)]),
    "more than allowed": lambda: _say(encode(Found(3 * 2**20, 1, b"")), _file(3 * 2**20, sealed=True)),
    "a file at the end": lambda: _say(encode(Done(0)), _file(5, sealed=True)),
    "no such message": lambda: _say(b"\xff"),
    "half a message": lambda: _say(encode(Done(0))[:4]),
    "a long message": lambda: _say(b"\5" + bytes(5_000)),
    "a verdict of its own": lambda: _say(encode(Failed(b"clean"))),
    "many members": lambda: _say(encode(Done(2**63))),
}

if __name__ == "__main__":
    main()
