"""The process that all children are copies of: everything is loaded, and no hostile byte was seen.

`python -m scanner.unpacking.template`, with the service at the other end of standard input. It ends when the
service does. Its children do not end when it does, so that no scan fails for that.
"""

from __future__ import annotations

import gc
import locale
import os
import signal
import socket
from contextlib import suppress
from itertools import pairwise
from typing import NoReturn

from scanner.unpacking.protocol import Born, Broken, Job, Ready, close_all, decode, receive, send
from scanner.unpacking.sandbox import Filter, be_first_to_go, end_with_parent, filter_of_calls

_STANDARD_ERROR, _MOST_DESCRIPTORS = 2, 256


def main() -> None:
    """Serve until the service is gone."""
    service = socket.socket(fileno=0)
    be_first_to_go()
    end_with_parent()
    signal.signal(signal.SIGCHLD, _reap)
    # In any other libarchive could not say names beyond ASCII, and would complain.
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    try:
        from scanner.unpacking.rehearsal import rehearse  # noqa: PLC0415  # libarchive may be missing

        calls, libraries = rehearse(fork, filter_of_calls())
    except (ImportError, OSError, AttributeError) as problem:
        send(service, Broken(str(problem).encode()))
        return
    gc.freeze()  # so that looking for garbage copies no page in a child
    send(service, Ready(calls is not None, libraries.encode()))
    _serve(service, calls)


def _serve(service: socket.socket, calls: Filter | None) -> None:
    while True:
        try:
            datagram, descriptors = receive(service)
        except EOFError:
            return
        match decode(datagram), descriptors:
            case Job() as job, [container, child]:
                with socket.socket(fileno=child) as connection, suppress(OSError):
                    fork(job, container, connection, calls)
                os.close(container)
            case _:
                close_all(descriptors)


def fork(job: Job, container: int, service: socket.socket, calls: Filter | None) -> None:
    """Have a child do `job`, and show the service its process; what we got stays ours. Raises OSError."""
    # It is not reaped before we have a descriptor of it: its number could be another's by then.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        child = os.fork()
        if child == 0:
            _live(job, container, service, calls)
        process = os.pidfd_open(child)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    try:
        send(service, Born(), [process])
    finally:
        os.close(process)


def _live(job: Job, container: int, service: socket.socket, calls: Filter | None) -> NoReturn:
    from scanner.unpacking.child import work  # noqa: PLC0415  # as above; it is loaded by now

    try:
        os.dup2(_STANDARD_ERROR, 0)
        kept = sorted((_STANDARD_ERROR, container, service.fileno(), _MOST_DESCRIPTORS))
        for low, high in pairwise(kept):
            os.closerange(low + 1, high)
        work(job, container, service, calls)
    finally:
        os._exit(0)


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


if __name__ == "__main__":
    main()
