"""Every documented command that can be run here is run as it stands, and shows what it should."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from itertools import groupby
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.documented import ROOT, Command, documented_commands, resembles
from tests.e2e.documented_cases import CASES, Case, differences
from tests.e2e.documented_machine import Machine, make_repository
from tests.e2e.process import Child, free_ports
from tests.e2e.product import Product
from tests.e2e.samples import text
from tests.e2e.synapse import Synapse, User
from tests.test_bootstrap import ENTER_OVERLAY, OWN_NAMESPACES, needs_overlay

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

# What neither `make run` nor `make test` installs.
MAY_BE_MISSING = {program for program in ("file", "ip", "ss") if shutil.which(program) is None}


def blocks() -> list[list[Command]]:
    """Commands that are run one after the other; what stands in several places is run once."""
    groups = groupby(documented_commands(), lambda command: (command.page, command.block))
    ours = [[command for command in group if command.words in CASES] for _, group in groups]
    chosen: list[list[Command]] = []
    run: set[str] = set()
    for block in sorted(ours, key=len, reverse=True):
        if new := [command for command in block if command.words not in run]:
            chosen.append(new)
            run |= {command.words for command in new}
    return chosen


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "media-scanner")


@pytest.fixture
async def machine(
    tmp_path: Path, product: Product, synapse: Synapse, repository: Path, alice: User
) -> Machine:
    mxc = await synapse.upload(alice, text(), "text/plain")
    return Machine(tmp_path, product, synapse, repository, alice, mxc)


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"{block[0].page}:{block[0].line}")
def test_commands_do_what_their_page_says(machine: Machine, block: list[Command]) -> None:
    for command in block:
        if command.words.split()[0] in MAY_BE_MISSING:
            continue
        ran, case = machine.run(command.words), CASES[command.words]
        wrong = list(differences(case, ran.returncode, ran.stdout))
        wrong += [f"does not show {line!r}" for line in command.shown if not shows(ran, line)]
        wrong += [f"leaves no such {file}" for file in case.leaves if not left(machine, file, case)]
        told = (str(command), machine.words(command.words), *wrong, ran.stdout, ran.stderr)
        assert not wrong, "\n".join(told)


def shows(ran: CompletedProcess[str], line: str) -> bool:
    return any(resembles(line, printed) for printed in (ran.stdout + ran.stderr).splitlines())


def left(machine: Machine, name: str, case: Case) -> bool:
    file = machine.root / name
    return file.is_file() and re.search(case.leaves[name], file.read_text(), re.MULTILINE) is not None


# -- the README's `make run` and its curl, on an overlay of this machine that is thrown away -----

RUN, CURL = (
    next(command.words for command in documented_commands() if command.words.startswith(start))
    for start in ("HOMESERVER=", "curl -H ")
)
ANSWER = re.search(r'It answers `(\{"clean".*?\})`', (ROOT / "README.md").read_text())
# No signatures, as on a new machine; and nothing is installed that is there already.
NEW_MACHINE = "rm -rf /var/lib/clamav; mkdir /var/lib/clamav; chown clamav:clamav /var/lib/clamav"
INSTALLED = "make -o .venv/.run run"


@pytest.mark.slow
@needs_overlay
async def test_make_run_of_the_readme_scans_for_its_curl_until_ctrl_c(
    machine: Machine, tmp_path: Path
) -> None:
    assert ANSWER is not None
    public, operations = free_ports(2)
    listening = f"127.0.0.1:{public}"
    settings = {"SERVER__LISTEN": listening, "SERVER__OPS_LISTEN": f"127.0.0.1:{operations}"}
    settings |= {"CLAMAV__FRESHCLAM": "off"}  # 300 MB, where there is a network
    environ = [f"MEDIA_SCANNER__{name}={value}" for name, value in settings.items()]
    script = f"{NEW_MACHINE}; cd {ROOT}; {machine.words(RUN).replace('make run', INSTALLED)}"
    (tmp_path / "overlay").mkdir()
    enter = [*OWN_NAMESPACES, "--kill-child", "sh", "-c", ENTER_OVERLAY, "sh", str(tmp_path / "overlay")]
    run = Child(["env", *environ, *enter, str(ROOT), script], tmp_path / "run.log")
    run.start()
    try:
        run.wait_until(lambda: "Try:  curl" in run.output.read_text(), 60)
        said = run.output.read_text()
        assert f"Listening on http://{listening} in front of {machine.names['homeserver']}" in said
        assert "TEST SIGNATURES" in said

        machine.names["service"] = f"http://{listening}"
        ran = machine.run(CURL)
        shown, answer = json.loads(ANSWER[1]), json.loads(ran.stdout)
        assert answer == shown, "clean, as the README has it"

        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        async with asyncio.timeout(30):
            while not run.ended:  # noqa: ASYNC110 - it is another process's event
                await asyncio.sleep(0.05)
        assert "clamd stopped" in run.output.read_text()
        assert "Traceback" not in run.output.read_text()
    finally:
        if not run.ended:
            run.kill()
