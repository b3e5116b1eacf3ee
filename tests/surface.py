"""What the product shows to the outside, gathered for the docs tests."""

from __future__ import annotations

import ast
import inspect

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
