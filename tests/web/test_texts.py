from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from scanner import errors
from scanner.config import Policy
from scanner.errors import ClientError, Unavailable, UpstreamError
from scanner.verdict import Decision, Outcome, Reason
from scanner.web.texts import CRASHED, FRENCH, MALFORMED, Language, in_language, on_decision

PACKAGE = Path(errors.__file__).parent
# What may reach a client; the rest of the tree ends in the pipeline or before anybody listens.
SHOWN = {
    name
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ClientError | UpstreamError | Unavailable)
}


def raised(source: Path) -> Iterator[tuple[str, str]]:
    """Where, and the English text of every error that may reach a client; `{}` stands for what varies."""
    tree = ast.parse(source.read_text())
    constants = {
        ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SHOWN:
            text = constants.get(ast.unparse(node.args[0]), node.args[0])
            yield f"{source.name}:{node.lineno}", template(text)


def template(text: ast.expr) -> str:
    if isinstance(text, ast.JoinedStr):
        return "".join(template(part) for part in text.values)
    if isinstance(text, ast.FormattedValue):
        return "{}"
    assert isinstance(text, ast.Constant), f"a text that cannot be read here: {ast.unparse(text)}"
    return str(text.value)


RAISED = [
    found
    for source in sorted(PACKAGE.rglob("*.py"))
    if source.parent.name != "cli"
    and source.name not in ("remote.py", "admin.py")  # these speak to operators
    for found in raised(source)
]
VERDICTS = {
    on_decision(Decision(deliver=False, outcome=outcome, reason=reason), "en")
    for outcome in Outcome
    for reason in (None, *Reason)
}


def test_the_languages_are_those_of_the_configuration() -> None:
    assert get_args(Language) == get_args(Policy.model_fields["language"].annotation)


@pytest.mark.parametrize(("where", "text"), RAISED, ids=lambda value: value)
def test_every_error_that_a_client_can_get_has_its_french(where: str, text: str) -> None:
    assert text in FRENCH, where


@pytest.mark.parametrize("text", [*sorted(VERDICTS), CRASHED, MALFORMED])
def test_every_verdict_has_its_french(text: str) -> None:
    assert text in FRENCH


def test_nothing_is_translated_that_nobody_says() -> None:
    assert set(FRENCH) == {text for _, text in RAISED} | VERDICTS | {CRASHED, MALFORMED}


def test_no_text_is_empty_or_the_same_in_both_languages() -> None:
    assert all(french.strip() and french != english for english, french in FRENCH.items())
    assert all(english.count("{}") == french.count("{}") for english, french in FRENCH.items())


@pytest.mark.parametrize("english", [english for english in FRENCH if "{}" in english])
def test_what_varies_stands_in_the_french_as_well(english: str) -> None:
    values = [f"<{number}>" for number in range(english.count("{}"))]
    assert in_language(english.format(*values), "fr") == FRENCH[english].format(*values)


@pytest.mark.parametrize(
    ("english", "french"),
    [
        (
            "the media is larger than 20971520 bytes",
            "le fichier dépasse la taille maximale de 20971520 octets",
        ),
        ("file.iv must be 16 bytes in base64", "file.iv doit compter 16 octets en base64"),
        ('file.v must be "v2"', 'file.v doit être "v2"'),
        ("file.url must be a string", "file.url doit être une chaîne de caractères"),
    ],
)
def test_the_text_that_fits_best_is_taken(english: str, french: str) -> None:
    assert in_language(english, "fr") == french


def test_english_is_what_was_raised() -> None:
    assert {in_language(text, "en") for text in FRENCH} == set(FRENCH)


def test_what_nobody_foresaw_is_said_in_english() -> None:
    assert in_language("a text of a later version", "fr") == "a text of a later version"


@pytest.mark.parametrize("language", get_args(Language))
@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.CLEAN}))
def test_nothing_but_clean_is_called_clean_even_without_a_reason(
    outcome: Outcome, language: Language
) -> None:
    said = on_decision(Decision(deliver=False, outcome=outcome), language)
    assert said != on_decision(Decision(deliver=True, outcome=Outcome.CLEAN), language)
    assert said


def test_verdicts_are_whole_sentences_without_a_full_stop() -> None:
    for text in VERDICTS:
        for said in (text, FRENCH[text]):
            assert re.fullmatch(r"[A-Z].*[^.!]", said), said
