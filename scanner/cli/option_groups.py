"""Options that belong together, as one argument of a command: the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter, signature
from typing import Any, get_type_hints


@dataclass(frozen=True)
class _Group:
    """A parameter of a command, and the options that are offered in its place."""

    name: str
    kind: type[Any]
    options: tuple[Parameter, ...]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, for typer: where a parameter's type is a dataclass, its fields are offered as options."""
    parameters = list(signature(command, eval_str=True).parameters.values())
    groups = [_group(each) for each in parameters if is_dataclass(each.annotation)]
    names = {group.name for group in groups}
    own = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters if each.name not in names]
    offered = [*own, *(option for group in groups for option in group.options)]

    def with_options(**values: object) -> None:
        for group in groups:
            values[group.name] = group.kind(**{each.name: values.pop(each.name) for each in group.options})
        command(**values)

    with_options.__name__ = command.__name__
    with_options.__doc__ = command.__doc__
    with_options.__signature__ = signature(command).replace(parameters=offered)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in offered}
    return with_options


def _group(parameter: Parameter) -> _Group:
    kind: type[Any] = parameter.annotation
    hints = get_type_hints(kind, include_extras=True)
    options = tuple(
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    )
    return _Group(parameter.name, kind, options)
