"""What deploy/Dockerfile says of one stage."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = CHECKOUT / "deploy" / "Dockerfile"


class Stage:
    """The instructions between one FROM and the next, in their order."""

    def __init__(self, instructions: list[tuple[str, str]]) -> None:
        self._instructions = instructions

    def all(self, keyword: str) -> list[str]:
        """What stands behind every `keyword`."""
        return [text for name, text in self._instructions if name == keyword]

    def command(self, keyword: str) -> list[str]:
        """ENTRYPOINT or CMD, of which there is one in its exec form at most."""
        found = self.all(keyword)
        assert len(found) < 2, keyword
        return list(json.loads(found[0])) if found else []

    @property
    def healthcheck(self) -> list[str]:
        [text] = self.all("HEALTHCHECK")
        return list(json.loads(text.partition(" CMD ")[2]))

    @property
    def environment(self) -> dict[str, str]:
        words = [word for text in self.all("ENV") for word in shlex.split(text)]
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    @property
    def user(self) -> tuple[int, int]:
        """Numbers of its user and group: a cluster's policies know no names."""
        [text] = self.all("USER")
        user, group = map(int, text.split(":"))
        return user, group

    def copies(self) -> Iterator[tuple[str, str]]:
        """Each file and folder of the checkout that it takes, and as what."""
        for text in self.all("COPY"):
            if not text.startswith("--from="):
                *sources, target = text.split()
                for source in sources:
                    yield source, target + Path(source).name if target.endswith("/") else target


@cache
def stages() -> dict[str, Stage]:
    """By their names."""
    found: dict[str, list[tuple[str, str]]] = {}
    instructions: list[tuple[str, str]] = []
    for keyword, text in _instructions():
        if keyword == "FROM":
            instructions = found[text.rpartition(" AS ")[2]] = []
        instructions.append((keyword, text))
    return {name: Stage(those) for name, those in found.items()}


def _instructions() -> Iterator[tuple[str, str]]:
    lines = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    for line in lines.replace("\\\n", " ").splitlines():
        keyword, _, text = line.partition(" ")
        if keyword:
            yield keyword, text.strip()
