"""Whether children can read is tried before the first container comes; here in a process apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BEGIN = """
from scanner.unpacking.protocol import Job
from scanner.unpacking.rehearsal import rehearse
from scanner.unpacking.sandbox import filter_of_calls
from scanner.unpacking.template import fork

class Unusable:
    def load(self):
        raise OSError("no seccomp in this kernel")

class TooTight:
    def load(self):
        import pyseccomp
        calls = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
        calls.add_rule(pyseccomp.ALLOW, "exit_group")
        calls.load()

"""


def told(code: str) -> str:
    """What a program prints, or the last line of its traceback."""
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr.splitlines()[-1]


def test_a_filter_that_lets_children_read_is_kept() -> None:
    assert told("calls = filter_of_calls(); print(rehearse(fork, calls)[0] is calls)") == "True"


def test_a_filter_that_cannot_be_loaded_is_left_out() -> None:
    assert told("print(rehearse(fork, Unusable())[0])") == "None"


def test_a_filter_under_which_children_cannot_read_is_left_out() -> None:
    """On another machine a library may make another call."""
    assert told("print(rehearse(fork, TooTight())[0])") == "None"


def test_where_no_child_can_read_there_is_no_template() -> None:
    complaint = "OSError: child processes cannot read archives"
    assert told("rehearse(lambda *_: None, None)") == complaint


def test_what_they_read_with_is_said() -> None:
    assert told("print(rehearse(fork, None)[1])").startswith("libarchive 3.")
