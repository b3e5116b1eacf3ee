"""What the product shows to the outside, gathered for the docs tests."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import scanner
from scanner import gauges as gauge_source
from scanner import readiness
from scanner.web.routes import ROUTES


def all_routes() -> list[str]:
    """Method and template of every route, but for the ones that only refuse."""
    return sorted({f"{method} {template}" for method, template in ROUTES})


def unready_reasons() -> list[str]:
    """Every key that `readiness` puts into its reasons, read from its source."""
    tree = ast.parse(inspect.getsource(readiness))
    subscripts = [node for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    dicts = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    keys = [node.slice for node in subscripts] + [key for node in dicts for key in node.keys]
    return sorted({key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)})


def gauges() -> list[str]:
    """Names of the gauges that are added, read from their source."""
    calls = [
        node for node in ast.walk(ast.parse(inspect.getsource(gauge_source))) if isinstance(node, ast.Call)
    ]
    named = [
        call.args[0] for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "gauge"
    ]
    return [name.value for name in named if isinstance(name, ast.Constant) and isinstance(name.value, str)]


def texts() -> list[re.Pattern[str]]:
    """What the sources may say, line by line: a pattern each, for whatever an f-string holds."""
    root = Path(inspect.getfile(scanner)).parent
    return [
        re.compile(".+".join(map(re.escape, pieces)))
        for source in root.rglob("*.py")
        for text in _literals(ast.parse(source.read_text()))
        for pieces in (line.strip("* ").split("\0") for line in text.splitlines())
        if sum(map(str.isalpha, "".join(pieces))) >= _SAYS_SOMETHING
    ]


_SAYS_SOMETHING = 8  # letters: by less a text would be found anywhere


def _literals(node: ast.AST) -> Iterator[str]:
    """Strings but docstrings, NUL for each brace of an f-string."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        for child in ast.iter_child_nodes(node):
            yield from _literals(child)
