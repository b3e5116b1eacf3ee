"""What the demo runs: clamd, Synapse, and the scanner in front of it, on free ports of loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from scanner.clamd.home import DATABASE, has_signatures
from tests.demo.screen import Screen
from tests.e2e.product import Product
from tests.e2e.synapse import Synapse
from tests.real_clamd import Clamd


class Signatures(StrEnum):
    """Which signatures the scanner uses."""

    TEST = "test"
    INSTALLED = "installed"

    @property
    def banner(self) -> str:
        """What they are worth."""
        if self is Signatures.INSTALLED and has_signatures(DATABASE):
            return f"Signatures: those of this machine, in {DATABASE}."
        return (
            "TEST SIGNATURES: this demo knows EICAR, the harmless test virus, and no real one. "
            "Production takes its signatures from freshclam."
        )


@contextmanager
def servers(directory: Path, signatures: Signatures, screen: Screen) -> Iterator[tuple[Synapse, Product]]:
    """All of them, up and ready; their files are below `directory`, which should have a short path.

    Raises AssertionError or RuntimeError with the last lines of what did not start.
    """
    with ExitStack() as stack:
        address = "embedded"
        if signatures is Signatures.TEST:
            with screen.step("Starting clamd with the test signatures"):
                address = _clamd(stack, directory / "clamd")
        with screen.step(f"Starting Synapse {version('matrix-synapse')} with SQLite"):
            synapse = stack.enter_context(Synapse())
        with screen.step("Starting the scanner in front of it"):
            product = stack.enter_context(_product(directory / "scanner", synapse.url, address))
        yield synapse, product


def _clamd(stack: ExitStack, directory: Path) -> str:
    clamd = Clamd(directory)
    stack.callback(clamd.stop)
    clamd.start()
    return f"unix:{clamd.socket}"


def _product(directory: Path, homeserver: str, address: str) -> Product:
    directory.mkdir()
    # Whatever is installed here, however old, and without asking the network.
    clamav = {"addresses": [address], "max_signature_age": None, "freshclam": "off"}
    return Product(directory, homeserver, {"clamav": clamav})
