"""The docs cannot drift: every key, route, reason, metric, event and unready reason stands there.

And what stands there exists: messages, links, tests.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scanner import events
from scanner.config import Config
from scanner.metrics import Metrics
from scanner.reload import RELOADABLE
from scanner.web.dialects import Code
from tests.surface import all_routes, gauges, texts, unready_reasons

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))]


def settings(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def shown_default(field: FieldInfo) -> str:
    default = field.get_default()
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    return f"[{', '.join(map(str, default))}]" if isinstance(default, tuple) else str(default)


def read(name: str) -> str:
    return (DOCS / name).read_text()


@pytest.mark.parametrize(("key", "field"), list(settings()))
def test_every_setting_is_documented_with_what_the_code_says_of_it(key: str, field: FieldInfo) -> None:
    rows = [line for line in read("configuration.md").splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1, f"docs/configuration.md needs one row for {key}"
    assert (field.description or "?") in rows[0]


def test_no_setting_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", read("configuration.md"), re.MULTILINE))
    assert documented == {key for key, _ in settings()}


def test_the_documented_defaults_are_the_configuration_of_an_empty_file(tmp_path: Path) -> None:
    shown = re.search(r"```yaml\n(.*?)```", read("configuration.md"), re.DOTALL)
    assert shown is not None
    file = tmp_path / "config.yaml"
    file.write_text(shown[1])
    assert Config.load(file, {}) == Config.load(None, {})


def test_the_docs_name_exactly_the_settings_that_a_reload_changes() -> None:
    section = read("configuration.md").partition("\n## Changing it under way\n")[2].partition("\n## ")[0]
    items = " ".join(re.findall(r"^(?:- |  ).*$", section, re.MULTILINE))
    assert set(re.findall(r"`([a-z_.]+)`", items)) == RELOADABLE


@pytest.mark.parametrize("route", all_routes())
def test_every_route_is_documented(route: str) -> None:
    assert f"`{route}`" in read("api.md") + read("operations.md")


@pytest.mark.parametrize("code", Code)
def test_every_error_reason_is_documented(code: Code) -> None:
    assert f"`{code}`" in read("api.md")


def metric_names() -> set[str]:
    metrics = Metrics("1", [("GET", "/x")], [("clamav", "unix:/x")], "memory")
    text, _ = metrics.render("")
    exposed = set(re.findall(r"^# TYPE (media_scanner_\w+?)(?:_total)? ", text.decode(), re.MULTILINE))
    return exposed | {f"media_scanner_{name}" for name in gauges()}


def test_every_metric_is_documented_and_no_other() -> None:
    assert metric_names() == set(re.findall(r"`(media_scanner_\w+?)(?:_total)?`", read("operations.md")))


@pytest.mark.parametrize("event", get_args(events.Event), ids=lambda event: event.__name__)
def test_every_event_is_documented(event: type) -> None:
    assert f"`{event.__name__}`" in read("operations.md")


@pytest.mark.parametrize("reason", unready_reasons())
def test_every_unready_reason_has_its_line_in_the_runbook(reason: str) -> None:
    assert f"| `{reason}` |" in read("operations.md")


# -- what the docs name exists --------------------------------------------------------------------

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]*))?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pytest.mark.parametrize("example", sorted((DOCS / "examples").iterdir()), ids=lambda example: example.name)
def test_client_authors_see_each_example_as_it_is(example: Path) -> None:
    assert f"({example.relative_to(DOCS)})" in read("clients.md")
    blocks = re.findall(r"^```\w+\n(.*?)^```$", read("clients.md"), re.MULTILINE | re.DOTALL)
    assert example.read_text() in blocks


def test_client_authors_see_every_error_reason() -> None:
    assert [code for code in Code if f"`{code}`" not in read("clients.md")] == []


def test_troubleshooting_quotes_what_the_sources_say() -> None:
    """Each text in a line with a bar before it."""
    lines = re.findall(r"^> (.*)$", read("troubleshooting.md"), re.MULTILINE)
    quoted = [text for line in lines for text in re.findall(r"`([^`]+)`", line)]
    said = texts()
    assert len(quoted) > 40
    assert [text for text in quoted if not any(pattern.fullmatch(text) for pattern in said)] == []


@pytest.mark.parametrize("name", ["troubleshooting.md", "threat-model.md"])
def test_metrics_that_are_named_exist(name: str) -> None:
    assert set(re.findall(r"`(media_scanner_\w+?)(?:_total)?`", read(name))) <= metric_names()


@cache
def functions(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_threat_model_names_tests_and_files_that_exist() -> None:
    text = read("threat-model.md")
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert [f"{file}::{test}" for file, test in tests if test not in functions(ROOT / file)] == []
    files = re.findall(r"`((?:scanner|deploy|docs|tests)/[\w./-]+|[\w-]+\.(?:yml|txt))`", text)
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_threat_that_is_held_off_is_shown_by_a_test() -> None:
    rows = re.findall(
        r"^\| (?!threat|asset|---)([^|]+)\|([^|]+)\|([^|]*)\|([^|]+)\|$",
        read("threat-model.md"),
        re.MULTILINE,
    )
    assert len(rows) > 30
    assert [
        threat for threat, defence, shown, _ in rows if "nothing" not in defence and "tests/" not in shown
    ] == []
