"""A child is asked to do what it must not be able to do: really forked, really confined."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from scanner.unpacking.sandbox import filter_of_calls
from tests.unpacking.scene import PROBING, scene


async def test_a_child_can_do_nothing_but_read() -> None:
    async with scene(template=PROBING) as stage:
        [(_, told)] = await stage.unpacked(b"refusals")
    answers = dict(line.split(": ") for line in told.decode().splitlines())
    assert len(answers) > 20
    assert {name: answer for name, answer in answers.items() if answer != "Operation not permitted"} == {}


async def test_a_child_has_its_limits() -> None:
    async with scene(template=PROBING) as stage:
        await stage.unpacked(b"nothing")
        await stage.idle()
        sleeping = asyncio.create_task(stage.unpacked(b"sleep"))
        pid = await stage.working()
        told = {name: about(pid, name) for name in ("status", "limits", "oom_score_adj", "environ")}
        opened = descriptors(pid)
        sleeping.cancel()
    status = dict(line.split(":\t") for line in told["status"].splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"], told["oom_score_adj"]) == ("1", "2", "1000\n")
    assert limit(told["limits"], "Max core file size") == limit(told["limits"], "Max processes") == 0
    assert limit(told["limits"], "Max cpu time") <= 21
    assert limit(told["limits"], "Max file size") == 300 * 2**20
    assert limit(told["limits"], "Max open files") == 256
    assert 256 * 2**20 < limit(told["limits"], "Max address space") < 400 * 2**20
    assert opened == {"/dev/null", "/memfd:container", "socket:"}
    assert {line.split("=")[0] for line in told["environ"].split("\0")} <= {
        "LIBARCHIVE",
        "PATH",
        "LC_CTYPE",
        "",
    }


def about(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def descriptors(pid: int) -> set[str]:
    """Of what kind."""
    names = (str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    return {re.sub(r"\[\d+\]| \(deleted\)", "", name) for name in names}


def limit(limits: str, name: str) -> int:
    [line] = [line for line in limits.splitlines() if line.startswith(name)]
    soft, hard = line.removeprefix(name).split()[:2]
    assert soft == hard
    return int(soft)


def test_the_list_of_calls_can_be_said_here() -> None:
    """Else the tests above would fail in ways that are hard to understand."""
    assert filter_of_calls() is not None
