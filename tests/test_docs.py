"""The docs cannot drift: every key, route, reason, metric, event, unready reason and command stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scanner import events
from scanner.config import Config
from scanner.metrics import Metrics
from scanner.reload import RELOADABLE
from scanner.web.wire import Code
from tests.surface import all_routes, gauges, unready_reasons

DOCS = Path(__file__).parent.parent / "docs"


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
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", read("configuration.md"), re.MULTILINE))
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


def test_every_metric_is_documented_and_no_other() -> None:
    metrics = Metrics("1", [("GET", "/x")], [("clamav", "unix:/x")], "memory")
    text, _ = metrics.render("")
    exposed = set(re.findall(r"^# TYPE (media_scanner_\w+?)(?:_total)? ", text.decode(), re.MULTILINE))
    exposed |= {f"media_scanner_{name}" for name in gauges()}
    documented = set(re.findall(r"`(media_scanner_\w+?)(?:_total)?`", read("operations.md")))
    assert exposed == documented


@pytest.mark.parametrize("event", get_args(events.Event), ids=lambda event: event.__name__)
def test_every_event_is_documented(event: type) -> None:
    assert f"`{event.__name__}`" in read("operations.md")


@pytest.mark.parametrize("reason", unready_reasons())
def test_every_unready_reason_has_its_line_in_the_runbook(reason: str) -> None:
    assert f"| `{reason}` |" in read("operations.md")


def test_the_readme_links_lead_somewhere() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (DOCS.parent / target).exists(), target
