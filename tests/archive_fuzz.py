"""Archives with something wrong in them before the whole product, and programs that open them all the same.

    python -m tests.archive_fuzz --seed 1 --count 10000

prints what was judged by kind, and what is wrong: a mutant that is delivered though a program gets EICAR from
it without its password, and one for which an engine failed. What is only encrypted is delivered.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scanner.verdict import Outcome, Policy
from tests.archive_mutants import Mutant, mutate
from tests.archives import dubious, extracted, innocent, locked
from tests.judging import Judge, judging_bytes
from tests.real_clamd import EICAR, Clamd

EICAR_AT_THE_START = f"Eicar-Start:0:0:{EICAR.hex()}\n"
# As open as a policy may be with what nobody can look into.
POLICY = Policy(deliver_encrypted_archives=True, deliver_encrypted_documents=True)
_LARGEST = 400_000
_AT_ONCE = 4
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Tried:
    """A mutant by its number, how it was judged, and who gets EICAR out of it where that was asked."""

    number: int
    mutant: Mutant
    outcome: Outcome
    reason: str | None
    delivered: bool
    reader: str | None

    @property
    def leaks(self) -> bool:
        """Whether somebody would be given a virus."""
        return self.delivered and self.reader is not None

    @property
    def wrong(self) -> bool:
        """It leaks, or there is no verdict."""
        return self.leaks or self.outcome is Outcome.FAILED

    def __str__(self) -> str:
        steps = " ".join(self.mutant.mutations)
        reader = f", {self.reader} opens it" if self.reader else ""
        return f"{self.number}: {self.mutant.kind} ({steps}) is {self.outcome.name}{reader}"


def seeds() -> dict[str, bytes]:
    """Archives of EICAR by the programs that people use, by kind."""
    made = innocent(EICAR) | dubious(EICAR) | locked(EICAR)
    return {kind: data for kind, data in made.items() if len(data) <= _LARGEST}


@contextmanager
def strict_clamd() -> Iterator[Clamd]:
    """A clamd that finds EICAR only where a file begins with it: what it does not unpack, it misses."""
    with tempfile.TemporaryDirectory(prefix="clamd-") as name:
        database = Path(name) / "database"
        database.mkdir()
        (database / "strict.ndb").write_text(EICAR_AT_THE_START)
        clamd = Clamd(Path(name), database=database)
        clamd.start()
        try:
            yield clamd
        finally:
            clamd.stop()


async def try_mutants(
    judge: Judge, archives: Mapping[str, bytes], seed: int, numbers: Iterable[int], *, ask_all: bool = False
) -> list[Tried]:
    """Each number is a mutant of its own. Programs are asked about those delivered, or about all."""
    room, programs = asyncio.Semaphore(_AT_ONCE), ThreadPoolExecutor(2)
    loop = asyncio.get_running_loop()

    async def tried(number: int) -> Tried:
        async with room:
            mutant = mutate(random.Random(f"{seed}/{number}"), archives)
            verdict = await judge(mutant.data)
            decision, reader = POLICY.decide(verdict), None
            if decision.deliver or ask_all:
                reader = await loop.run_in_executor(programs, extracted, mutant.data, EICAR)
            return Tried(number, mutant, decision.outcome, decision.reason, decision.deliver, reader)

    with programs:
        return await asyncio.gather(*(tried(number) for number in numbers))


async def wrong(clamd: Clamd, archives: Mapping[str, bytes], seed: int, count: int, state: Path) -> list[str]:
    """Mutants that are delivered though a program gets EICAR from them, or have no verdict."""
    async with judging_bytes(clamd, state) as judge:
        return [str(one) for one in await try_mutants(judge, archives, seed, range(count)) if one.wrong]


def report(tried: Iterable[Tried]) -> str:
    """A line for each kind: mutants, who gets EICAR, outcomes, leaks; then the reasons."""
    rows: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for one in tried:
        row = rows.setdefault(one.mutant.kind, Counter())
        total = rows.setdefault("all", Counter())
        for counted in (row, total):
            counted.update(("mutants", one.outcome.name))
            counted.update(["EICAR"] * bool(one.reader) + ["LEAKS"] * one.leaks)
        if one.outcome is not Outcome.CLEAN:
            reasons[f"{one.outcome.name} {one.reason}"] += 1
    columns = ("mutants", "EICAR", "CLEAN", "INFECTED", "UNSCANNABLE", "FAILED", "LEAKS")
    lines = [f"{'':26}" + "".join(f"{name:>12}" for name in columns)]
    lines += [f"{kind:26}" + "".join(f"{row[name]:12}" for name in columns) for kind, row in rows.items()]
    return "\n".join([*lines, *(f"{reason:40}{count:8}" for reason, count in reasons.most_common())])


async def _main(arguments: argparse.Namespace) -> None:
    archives, tried = seeds(), []
    with strict_clamd() as clamd, tempfile.TemporaryDirectory() as state:
        async with judging_bytes(clamd, Path(state)) as judge:
            for begin in range(arguments.start, arguments.start + arguments.count, _BATCH):
                numbers = range(begin, min(begin + _BATCH, arguments.start + arguments.count))
                batch = await try_mutants(judge, archives, arguments.seed, numbers, ask_all=arguments.all)
                for one in batch:
                    if one.wrong:
                        print(one, flush=True)  # noqa: T201 - a program
                tried += batch
    sys.stdout.write(report(tried) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="the first mutant's number")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--all", action="store_true", help="ask programs about all, delivered or not")
    asyncio.run(_main(parser.parse_args()))
