"""Who may import whom, and the habits that a linter does not know. Each failure names the offender."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scanner"
TESTS = ROOT / "tests"

# -- the rules, as data: a part is a module or a folder of `scanner/` -----------------------------

LEVEL_0 = {"crypto", "errors", "verdict"}
LEVEL_0_AND_1 = LEVEL_0 | {"media", "events", "ports", "single_flight", "admission"}

MAY_IMPORT = {
    # 0: the standard library and cryptography
    "errors": set[str](),
    "verdict": {"member_names"},
    "member_names": set[str](),
    "crypto": {"errors"},
    "media": LEVEL_0,
    "events": LEVEL_0 | {"media"},
    "bus": {"events"},
    # 1
    "ports": LEVEL_0 | {"media", "events"},
    "single_flight": LEVEL_0 | {"media", "events"},
    "admission": LEVEL_0 | {"media", "events"},
    "sqlite_file": {"errors"},
    "readable": set[str](),
    # 2: the story, and what it is told about; none of them knows another
    "pipeline": LEVEL_0_AND_1,
    "quarantine": LEVEL_0_AND_1 | {"durable", "sqlite_file"},
    "stores": LEVEL_0_AND_1 | {"durable"},
    "clamd": LEVEL_0_AND_1 | {"readable"},
    "containers": LEVEL_0_AND_1,
    "engines": LEVEL_0_AND_1 | {"clamd", "containers", "unpacking"},
    "unpacking": LEVEL_0_AND_1 | {"containers", "readable"},
    "verdict_cache": LEVEL_0_AND_1 | {"sqlite_file"},
    "event_sinks": LEVEL_0_AND_1,
    "upstream": LEVEL_0_AND_1,
    "metrics": LEVEL_0_AND_1 | {"metric_labels", "series"},
    "metric_labels": LEVEL_0_AND_1,
    "series": set[str](),
    "canary": LEVEL_0_AND_1,
    "readiness": LEVEL_0_AND_1,
    # 3
    "web": LEVEL_0_AND_1 | {"pipeline", "upstream"},
    "files": LEVEL_0_AND_1 | {"readable"},
    "doctor": LEVEL_0_AND_1
    | {"canary", "clamd", "containers", "key_files", "quarantine", "stores", "tls", "unpacking"},
    "gauges": LEVEL_0_AND_1 | {"clamd", "metrics", "series"},
    # 4
    "strict_yaml": {"errors"},
    "config_values": set[str](),
    "config_quarantine": {"config_values"},
    "config": {"errors", "config_quarantine", "config_values", "strict_yaml"},
    "migration": {"config", "errors", "strict_yaml"},
    "epoch": {"errors"},
    "tls": {"errors"},
    "durable": set[str](),
    "library_log": LEVEL_0_AND_1,
    "reload": {"config", "errors", "events"},
    "key_files": {"crypto", "errors"},
    "analysts": LEVEL_0_AND_1 | {"config", "gauges", "judge", "key_files", "metrics", "quarantine"},
    "remote": LEVEL_0_AND_1,
    "synapse_module": set[str](),  # Synapse imports it alone
    "cli": LEVEL_0_AND_1
    | {"analysts", "app", "bus", "clamd", "config", "doctor", "epoch", "files", "judge", "key_files"}
    | {"migration", "quarantine", "safekeeping", "remote", "stores", "tls"},
    "__main__": {"cli"},
}
# The composition root knows every class.
KNOWS_EVERYTHING = {"app", "consequences", "judge", "safekeeping"}
# Folders of interchangeable siblings, which never import each other.
INTERCHANGEABLE = {"engines", "stores", "verdict_cache", "event_sinks"}
# Each library has its doors; behind them nobody knows it.
LIBRARIES = {
    "ahocorasick_rs": {"containers"},
    "aiobotocore": {"doctor", "stores"},
    "botocore": {"doctor", "stores"},
    "aiohttp": {"doctor", "remote", "stores", "upstream", "web"},
    "cryptography": {"crypto"},
    "libarchive": {"unpacking"},
    "magic": {"engines", "cli"},
    "multidict": {"upstream", "web"},
    "multipart": {"web"},
    "prometheus_client": {"metrics", "series"},
    "pyclamd": {"clamd"},
    "pydantic": {"config", "config_quarantine", "config_values"},
    "pydantic_core": {"config_values"},
    "pyseccomp": {"unpacking"},
    "pyzipper": {"quarantine"},
    "structlog": {"event_sinks"},
    "synapse": {"synapse_module"},
    "twisted": {"synapse_module"},
    "rich": {"cli"},
    "typer": {"cli"},
    "types_aiobotocore_s3": {"doctor", "stores"},
    "uvloop": {"cli"},
    "yaml": {"strict_yaml", "cli"},
    "yarl": {"upstream"},
}
READS_ENVIRONMENT = {"config.py"}
# Where a bug of an engine or of ours ends; everywhere else exceptions have names.
CATCHES_EVERYTHING = {"pipeline.py", "canary.py", "web/server.py"}

# Protocols without code: their tests are the suites in tests/contracts.
WITHOUT_TWIN = {"__init__.py", "__main__.py", "ports.py"}
# Tests of the whole, not of one file.
WITHOUT_SOURCE = {
    "test_architecture.py",
    "test_archive_bombs.py",
    "test_archive_encryption.py",
    "test_archive_faults.py",
    "test_archive_fuzz.py",
    "test_archive_innocence.py",
    "test_archive_ole2.py",
    "test_archive_pdf.py",
    "test_archive_speed.py",
    "test_bootstrap.py",
    "test_docs.py",
    "test_joined_streams.py",
    "test_documented_commands.py",
}
WHOLE_FOLDERS = {"bench", "deploy", "e2e", "contracts", "vectors"}

LONGEST_FILE = 400
LONGEST_FUNCTION = 60

# -- the syntax trees ----------------------------------------------------------------------------

SOURCES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
TEST_FILES = [path.relative_to(TESTS) for path in sorted(TESTS.rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@pytest.fixture(autouse=True, scope="module")
def no_tree_outlives_these_tests() -> Iterator[None]:
    """Half a million nodes would make every search for garbage in later tests ten times as long."""
    yield
    tree.cache_clear()


def part(source: Path) -> str:
    """The module or folder of `scanner/` that a file belongs to."""
    return source.parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, wherever it stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def modules(source: Path) -> Iterator[tuple[int, Path]]:
    """Line and file of every module of ours that is imported."""
    for line, name in imports(PACKAGE / source):
        if name.split(".")[0] == "scanner":
            path = Path(*name.split(".")[1:])
            while not (PACKAGE / path).with_suffix(".py").exists() and path.parts:
                path = path.parent
            if path.parts:
                yield line, path.with_suffix(".py")


def offenders(found: Iterator[str]) -> None:
    names = sorted(set(found))
    assert not names, "\n" + "\n".join(names)


# -- who imports whom ----------------------------------------------------------------------------


def test_every_part_has_its_place() -> None:
    parts = {part(source) for source in SOURCES} - {"__init__"}
    offenders(f"scanner/{name} is in no table" for name in parts - {*MAY_IMPORT, *KNOWS_EVERYTHING})


def test_imports_point_downwards() -> None:
    offenders(
        f"scanner/{source}:{line} imports {other}: {here} may not know {part(other)}"
        for source in SOURCES
        if (here := part(source)) not in KNOWS_EVERYTHING
        for line, other in modules(source)
        if part(other) != here and part(other) not in MAY_IMPORT.get(here, set())
    )


def test_interchangeable_siblings_do_not_know_each_other() -> None:
    offenders(
        f"scanner/{source}:{line} imports its sibling {other}"
        for source in SOURCES
        if part(source) in INTERCHANGEABLE
        for line, other in modules(source)
        if part(other) == part(source)
    )


def test_libraries_are_known_behind_their_doors_only() -> None:
    offenders(
        f"scanner/{source}:{line} imports {library or 'relatively'}"
        for source in SOURCES
        for line, library in libraries(source)
        if library not in sys.stdlib_module_names and part(source) not in LIBRARIES.get(library, set())
    )


def libraries(source: Path) -> set[tuple[int, str]]:
    found = imports(PACKAGE / source)
    return {(line, name.split(".")[0]) for line, name in found if not name.startswith("scanner")}


def test_no_module_imports_itself_round_a_corner() -> None:
    graph = {source: {other for _, other in modules(source)} for source in SOURCES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


# -- habits --------------------------------------------------------------------------------------


def test_only_the_configuration_reads_the_environment() -> None:
    names = {"environ", "environb", "getenv", "getenvb"}
    offenders(
        f"scanner/{source}:{node.lineno} reads the environment"
        for source in SOURCES
        if str(source) not in READS_ENVIRONMENT
        for node in ast.walk(tree(PACKAGE / source))
        if (isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os")
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and names & {n.name for n in node.names})
    )


def test_only_the_guards_catch_everything() -> None:
    """BaseException may be caught to clean up, if it is raised again."""
    offenders(
        f"scanner/{source}:{node.lineno} catches everything"
        for source in SOURCES
        for node in ast.walk(tree(PACKAGE / source))
        if (
            isinstance(node, ast.ExceptHandler)
            and catches_everything(node)
            and str(source) not in CATCHES_EVERYTHING
        )
        or (isinstance(node, ast.Call) and suppresses_everything(node))
    )


def catches_everything(handler: ast.ExceptHandler) -> bool:
    caught = named(handler.type)
    raises_again = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
    return handler.type is None or "Exception" in caught or ("BaseException" in caught and not raises_again)


def suppresses_everything(call: ast.Call) -> bool:
    caught = {name for argument in call.args for name in named(argument)}
    return ast.unparse(call.func).endswith("suppress") and bool(caught & {"Exception", "BaseException"})


def named(types: ast.expr | None) -> set[str]:
    elements = types.elts if isinstance(types, ast.Tuple) else [types]
    return {ast.unparse(element).removeprefix("builtins.") for element in elements if element is not None}


def test_no_transport_is_given_a_pipe() -> None:
    """Its number would be closed once more than it may (scanner/readable.py)."""
    names = {"connect_read_pipe", "connect_write_pipe", "subprocess_exec", "subprocess_shell"}
    offenders(
        f"scanner/{source}:{node.lineno} uses {node.attr}"
        for source in SOURCES
        for node in ast.walk(tree(PACKAGE / source))
        if isinstance(node, ast.Attribute) and node.attr.removeprefix("create_") in names
    )


def test_init_files_are_empty() -> None:
    offenders(
        f"{path.relative_to(ROOT)} is not empty"
        for folder in (PACKAGE, TESTS)
        for path in folder.rglob("__init__.py")
        if path.read_text().strip()
    )


def test_files_are_short() -> None:
    lengths = {source: len((PACKAGE / source).read_text().splitlines()) for source in SOURCES}
    offenders(
        f"scanner/{source} has {lines} lines" for source, lines in lengths.items() if lines > LONGEST_FILE
    )


def test_functions_are_short() -> None:
    offenders(
        f"scanner/{source}:{node.lineno} {node.name} is too long"
        for source in SOURCES
        for node in ast.walk(tree(PACKAGE / source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    )


def test_module_says_what_it_is_for() -> None:
    offenders(
        f"scanner/{source} has no docstring"
        for source in SOURCES
        if source.name != "__init__.py" and not ast.get_docstring(tree(PACKAGE / source))
    )


# -- the tests themselves ------------------------------------------------------------------------


def test_source_has_its_test_twin() -> None:
    twins = [source.with_name(f"test_{source.name}") for source in SOURCES if source.name not in WITHOUT_TWIN]
    offenders(f"tests/{twin} is missing" for twin in twins if not (TESTS / twin).exists())


def test_test_file_has_its_source() -> None:
    offenders(
        f"tests/{test} tests nothing: scanner/{test.with_name(test.name.removeprefix('test_'))} is not there"
        for test in TEST_FILES
        if test.name.startswith("test_")
        and test.name not in WITHOUT_SOURCE
        and part(test) not in WHOLE_FOLDERS
        if not (PACKAGE / test.with_name(test.name.removeprefix("test_"))).exists()
    )


def test_nothing_is_mocked() -> None:
    offenders(
        f"tests/{test}:{line} imports {name}"
        for test in TEST_FILES
        if "mock" in (TESTS / test).read_text()
        for line, name in imports(TESTS / test)
        if name.startswith(("unittest.mock", "mock.", "pytest_mock"))
    )


def test_no_file_is_a_detection_itself() -> None:
    """EICAR is assembled at run time."""
    eicar = "EICAR-STANDARD-" + "ANTIVIRUS"
    offenders(
        f"{path.relative_to(ROOT)} contains EICAR"
        for folder in (PACKAGE, TESTS, ROOT / "deploy", ROOT / "docs")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and eicar.encode() in path.read_bytes()
    )
