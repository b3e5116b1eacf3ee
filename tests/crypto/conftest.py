from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

# An example that waits for a busy machine is not a failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    if error is not None:
        yield error
        yield from _chain(error.__cause__)
        yield from _chain(error.__context__)


@pytest.fixture(scope="session")
def everything_said_by() -> Callable[[BaseException], str]:
    """What of an error could reach a log: traceback, texts, arguments and attributes of its whole chain."""

    def everything(error: BaseException) -> str:
        said = traceback.format_exception(error)
        for link in _chain(error):
            # `object` is where a UnicodeError keeps the offending text.
            said += [str(link), repr(link.args), repr(vars(link)), repr(getattr(link, "object", None))]
        return "\n".join(said)

    return everything
