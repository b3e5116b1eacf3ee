"""A run: everything is started, every scenario meets every target in turns, everything is stopped."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import uvloop

from scanner.cli.version import product_version
from tests.bench.clamd import Clamd
from tests.bench.corpus import Corpus
from tests.bench.load import Trial
from tests.bench.record import Conditions, Measured, Measurements, Record
from tests.bench.reference.environment import reference_python
from tests.bench.scenarios import Scenario, bases_of, chosen
from tests.bench.services import BenchError, media_repository
from tests.bench.signatures import build_database
from tests.bench.targets import FLOOR, PRODUCT, REFERENCE, Floor, Surroundings, Target, product, reference

Say = Callable[[str], None]


class Options(NamedTuple):
    """`budget` in seconds: no scenario begins after it. `port` and the three after it are taken.

    `seconds` multiplies the duration of scenarios. `folder` keeps what is made once.
    """

    scenarios: list[Scenario]
    targets: list[str]
    rounds: int
    seconds: float
    budget: float
    scale: float
    port: int
    folder: Path

    def command(self) -> str:
        """What measures the same again."""
        names = ",".join(each.name for each in self.scenarios)
        only = "" if self.scenarios == chosen("") else f" --only {names}"
        return f"python -m tests.bench run --rounds {self.rounds} --seconds {self.seconds:g}{only}"


def compare(options: Options, say: Say) -> Record:
    """Raises BenchError."""
    if not options.scenarios:
        raise BenchError("no scenario has such a name; see `python -m tests.bench scenarios`")
    began, load = time.monotonic(), os.getloadavg()[0]
    with ExitStack() as stack:
        run = _Run(options, _surroundings(options, stack, say), say)
        for target in run.targets:
            stack.callback(target.stop)
            target.start()
        measured = run.measure()
        clamd = run.surroundings.clamd.version
    return Record(conditions=_conditions(options, clamd, load, time.monotonic() - began), scenarios=measured)


def _surroundings(options: Options, stack: ExitStack, say: Say) -> Surroundings:
    """With clamd and the media repository running; they stop with `stack`."""
    names = bases_of(options.scenarios)
    corpus, database = options.folder / "corpus", options.folder / f"signatures-{options.scale:g}"
    say("preparing media and signatures")
    Corpus(corpus).prepare(names)
    build_database(database, options.scale)
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=_tmpfs())))
    private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-clamd-")))
    clamd = Clamd(private, database, scratch)
    origin = media_repository(options.port, corpus, names, options.folder / "media_repository.log")
    for service in (clamd, origin):
        stack.callback(service.stop)
        service.start()
    return Surroundings(clamd, options.port, options.folder, scratch)


def _tmpfs() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class _Run:
    """The targets, and what they have done so far."""

    def __init__(self, options: Options, surroundings: Surroundings, say: Say) -> None:
        self.surroundings = surroundings
        self.targets = [self._target(name, options, say) for name in options.targets]
        self._options = options
        self._say = say
        self._corpus = Corpus(options.folder / "corpus")
        self._corpus.prepare(bases_of(options.scenarios))
        self._deadline = time.monotonic() + options.budget

    def _target(self, name: str, options: Options, say: Say) -> Target:
        if name == FLOOR:
            return Floor(self.surroundings.clamd, os.cpu_count() or 1)
        if name == PRODUCT:
            return product(self.surroundings, options.port + 2)
        if name != REFERENCE:
            raise BenchError(f"{name!r} is no target; {REFERENCE}, {PRODUCT} and {FLOOR} are")
        if not shutil.which("clamdscan"):
            raise BenchError("the reference needs clamdscan: apt-get install clamdscan")
        return reference(self.surroundings, options.port + 1, reference_python(options.folder, say))

    def measure(self) -> list[Measurements]:
        measured = []
        for number, scenario in enumerate(self._options.scenarios, 1):
            if time.monotonic() > self._deadline:
                self._say(f"{scenario.name}: out of time, skipped")
                continue
            measured.append(self._measure(scenario))
            self._say(f"[{number}/{len(self._options.scenarios)}] {scenario.name}: {_rates(measured[-1])}")
        return measured

    def _measure(self, scenario: Scenario) -> Measurements:
        """A first, then B; then B first, then A."""
        rounds = []
        for number in range(min(self._options.rounds, scenario.rounds)):
            targets = self.targets if number % 2 == 0 else self.targets[::-1]
            rounds.append(
                {t.name: self._try(t, scenario) for t in targets if scenario.floor or t.name != FLOOR}
            )
        return Measurements(name=scenario.name, title=scenario.title, callers=scenario.callers, rounds=rounds)

    def _try(self, target: Target, scenario: Scenario) -> Measured:
        if scenario.fresh:
            target.stop()
            target.start()
        scenario = scenario.lasting(self._options.seconds)
        measured = uvloop.run(Trial(self.surroundings, target, scenario, self._corpus).run())
        target.check()
        return measured


def _rates(measured: Measurements) -> str:
    return ", ".join(f"{name} {measured.median(name, 'files_s'):.4g} files/s" for name in measured.targets())


def _conditions(options: Options, clamd: str, load: float, seconds: float) -> Conditions:
    return Conditions(
        date=datetime.now(UTC).date().isoformat(),
        command=options.command(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6,
        python=platform.python_version(),
        product=product_version(),
        clamd=clamd,
        scale=options.scale,
        load_before=round(load, 1),
        seconds=round(seconds),
    )


def _processor() -> str:
    """Its model where the kernel tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
