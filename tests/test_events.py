from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from scanner.events import Event

KINDS: tuple[type, ...] = get_args(Event)


@pytest.mark.parametrize("kind", KINDS)
def test_event_is_a_fixed_value_that_has_no_room_for_a_secret(kind: type) -> None:
    """What happened cannot be changed by one sink under the eyes of the next, or be given a token later."""
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__dict__" not in dir(kind)
    fields = {field.name for field in dataclasses.fields(kind)}
    assert not fields & {"key", "token", "authorization", "plaintext", "file", "body", "sample", "headers"}
