"""The commands that README and docs tell people to run: those of shell blocks, and those in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

_PAGES = ("*.md", "docs/**/*.md", "deploy/**/README*", "tests/**/README.md")
_HISTORY = ROOT / "CHANGELOG.md"
_FENCE = re.compile(r"^ *```(\w*)")
_SHELLS = {"sh", "bash", "shell", "console"}
_PROMPT = "$ "
# A `#` where the shell sees a comment: outside of quotes, after a space.
_COMMENT = re.compile(r"""^((?:[^'"#]|(?<=\S)#|'[^']*'|"[^"]*")*?)(?:^|\s+)#\s.*$""")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# In the text: one of these programs with a word behind it, or any program with an option.
_PROGRAMS = (
    "make|media-scanner|docker|systemctl|journalctl|apt-get|apt|install|curl|git|pip|python3?|sudo|kill|echo"
    r"|apparmor_parser|aa-\w+|(?:\.venv/bin|deploy)/\S+"
)
_COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:(?:{_PROGRAMS}) [^:]|[a-z][\w./-]* (?:.* )?--?[a-z])")


@dataclass(frozen=True)
class Command:
    """One command, without comments and prompts.

    `block` counts the blocks and paragraphs' commands of its page; `shown` are the lines of its output that
    the page shows.
    """

    page: str
    line: int
    block: int
    words: str
    shown: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.words}"


def documented_commands() -> list[Command]:
    """All of them, page by page."""
    pages = {path for pattern in _PAGES for path in ROOT.glob(pattern)} - {_HISTORY}
    own = (path for path in sorted(pages) if "node_modules" not in path.parts)
    return [command for path in own for command in commands_of(str(path.relative_to(ROOT)), path.read_text())]


def commands_of(page: str, text: str) -> Iterator[Command]:
    """Those of one page, from top to bottom."""
    lines = list(enumerate(text.splitlines(), 1))
    block = 0
    while lines:
        number, line = lines.pop(0)
        fence = _FENCE.match(line)
        if fence is None:
            for words in map(str.strip, _SPAN.findall(line)):
                if _COMMAND.match(words):
                    block += 1
                    yield Command(page, number, block, words)
            continue
        inside = []
        while lines and not _FENCE.match(lines[0][1]):
            inside.append(lines.pop(0))
        lines[:1] = []
        block += 1
        yield from _commands_in(page, block, fence[1], inside)


def _commands_in(page: str, block: int, language: str, lines: list[tuple[int, str]]) -> Iterator[Command]:
    has_prompts = any(line.lstrip().startswith(_PROMPT) for _, line in lines)
    if language not in _SHELLS and not (has_prompts and not language):
        return
    numbered = list(_joined(lines))
    for at, (number, line) in enumerate(numbered):
        if has_prompts and not line.startswith(_PROMPT):
            continue
        words = _COMMENT.sub(r"\1", line.removeprefix(_PROMPT)).strip()
        if words:
            yield Command(page, number, block, words, _output(numbered[at + 1 :]) if has_prompts else ())


def _joined(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Without indentation; a line that ends in a backslash goes on in the next."""
    waiting, since = "", 0
    for number, line in lines:
        since = since or number
        waiting += line.strip()
        if waiting.endswith("\\"):
            waiting = waiting[:-1]
            continue
        yield since, waiting
        waiting, since = "", 0


def _output(following: list[tuple[int, str]]) -> tuple[str, ...]:
    lines = []
    for _, line in following:
        if line.startswith(_PROMPT):
            break
        lines.append(line)
    return tuple(line for line in lines if line)


def resembles(shown: str, printed: str) -> bool:
    """Whether `printed` has the shape of a line of the docs: the same words, with other numbers and names.

    Placeholders are words in capitals; `...` stands for anything.
    """
    pattern = re.sub(r"\\\.\\\.\\\.|\b[A-Z_]{3,}\b|[0-9a-f]*[0-9][0-9a-f]*", ".+", re.escape(shown))
    return re.fullmatch(re.sub(r"(\\ )+", r"\\s+", pattern), printed.strip()) is not None
