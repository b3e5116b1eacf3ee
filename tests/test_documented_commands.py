"""No command stands in README or docs that nothing runs, and no test names one that is gone."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.documented import ROOT, Command, commands_of, documented_commands, resembles
from tests.documented_elsewhere import NOT_RUN, SHOWN_BY
from tests.e2e.documented_cases import CASES, Case, differences
from tests.e2e.documented_machine import RULES
from tests.test_docs import functions

TABLES = (CASES, SHOWN_BY, NOT_RUN)
COMMANDS = documented_commands()
NAMED_TESTS = sorted({*SHOWN_BY.values(), *(instead.checked_by for instead in NOT_RUN.values())})

# -- nothing is left out -------------------------------------------------------------------------


def test_every_documented_command_is_run_or_shown_by_a_test_or_it_is_said_why_not() -> None:
    uncovered = [str(command) for command in COMMANDS if not any(command.words in table for table in TABLES)]
    assert not uncovered, "\n".join(["no case for:", *uncovered])


def test_no_command_stands_in_two_tables_or_in_no_page() -> None:
    documented = {command.words for command in COMMANDS}
    listed = [words for table in TABLES for words in table]
    assert len(listed) == len(set(listed))
    assert set(listed) <= documented


@pytest.mark.parametrize("name", NAMED_TESTS)
def test_test_that_is_named_exists(name: str) -> None:
    file, _, function = name.partition("::")
    there = functions(ROOT / file)
    assert function in there if function else any(each.startswith("test_") for each in there)


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in RULES])
def test_nothing_is_replaced_that_is_documented_nowhere(pattern: str) -> None:
    assert any(re.search(pattern, command.words) for command in COMMANDS)


def make_commands() -> list[str]:
    return sorted({command.words for command in COMMANDS if re.search(r"(^| )make ", command.words)})


@pytest.mark.parametrize("words", make_commands())
def test_make_knows_every_target_and_variable_that_is_documented(words: str) -> None:
    """As it says itself what it would run; where nothing is installed yet, too."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    dry = re.sub(r"(^| )make ", r"\1make --dry-run --old-file .venv/.dev --old-file .venv/.run ", words)
    ran = subprocess.run(
        ["sh", "-c", dry], cwd=ROOT, env=inherited, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    for variable, value in re.findall(
        r"(?<=\s)([A-Z_]+)=('[^']*'|\"[^\"]*\"|\S+)", words.partition("make ")[2]
    ):
        written = shlex.split(value)[0]
        assert written in ran.stdout or f"--{variable.lower()}" in ran.stdout


# -- how output is compared ----------------------------------------------------------------------

FINDINGS = Case(documents=({"status": str, "findings": [{"name": str}]},))


@pytest.mark.parametrize(
    ("case", "code", "printed", "wrong"),
    [
        (Case(lines=(r".*: clean",)), 0, "a: clean\nb: infected\n", 0),
        (Case(lines=(r".*: clean",)), 2, "a: clean\n", 1),
        (Case(lines=(r".*: clean",)), 0, "a: clean enough\n", 1),
        (Case(codes=frozenset({0, 1})), 1, "", 0),
        (FINDINGS, 0, '{"status": "ok", "findings": [{"name": "a"}, {"name": "b"}]}', 0),
        (FINDINGS, 0, '{"status": "ok", "findings": [{"name": "a"}, {"name": null}]}', 2),
        (FINDINGS, 0, '{"status": "ok", "findings": [], "more": 1}', 2),
        (FINDINGS, 0, "", 1),
        (Case(documents=({"a": int}, {"b": int})), 0, '{"a": 1}\n{"a": 2}\n{"b": 3}\n', 0),
    ],
)
def test_differences_are_exit_codes_lines_and_shapes(case: Case, code: int, printed: str, wrong: int) -> None:
    assert len(list(differences(case, code, printed))) == wrong


# -- how commands are found ----------------------------------------------------------------------

PAGE = """\
Run `make run`, or `MEDIA_SCANNER__A=b make bench`; `clamd missing` is a message, `scanner.py` a file.

```sh
one --way                 # a comment
FILE=/x#y two "# no comment" | \\
    three
# nothing else

```

1. In a list:

   ```console
   $ media-scanner scan FILE
   FILE: clean

   $ media-scanner keys rotate
   ```

```python
print("no command")
```
"""


def found() -> list[Command]:
    return list(commands_of("page.md", PAGE))


def test_commands_are_found_in_blocks_and_in_the_text_and_nowhere_else() -> None:
    assert [(command.line, command.words) for command in found()] == [
        (1, "make run"),
        (1, "MEDIA_SCANNER__A=b make bench"),
        (4, "one --way"),
        (5, 'FILE=/x#y two "# no comment" | three'),
        (14, "media-scanner scan FILE"),
        (17, "media-scanner keys rotate"),
    ]


def test_commands_of_one_block_belong_together() -> None:
    blocks = [command.block for command in found()]
    assert blocks[2] == blocks[3] < blocks[4] == blocks[5]
    assert len(set(blocks)) == 4


def test_output_that_is_shown_belongs_to_the_command_before_it() -> None:
    assert [command.shown for command in found()][-2:] == [("FILE: clean",), ()]


@pytest.mark.parametrize(
    ("shown", "printed", "alike"),
    [
        ("FILE: clean", "/tmp/letter.txt: clean", True),
        ("FILE: clean", "/tmp/letter.txt: infected", False),
        ("ClamAV 1.4.6, signatures 3 hours old", "ClamAV 1.5.0, signatures 12 hours old", True),
        ("{...}", '{"a": 1}', True),
        ("ready   yes", "ready  yes", True),
        ("ready", "ready or not", False),
    ],
)
def test_lines_resemble_each_other_but_for_numbers_and_names(shown: str, printed: str, alike: bool) -> None:
    assert resembles(shown, printed) is alike


def test_pages_are_those_of_the_checkout() -> None:
    pages = {command.page for command in COMMANDS}
    assert {"README.md", "CONTRIBUTING.md", "docs/operations.md", "docs/migration.md"} <= pages
    assert all(Path(ROOT, page).is_file() for page in pages)
