"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Where docs/operations.md puts the service's configuration: what commands are given where no other is named.
SYSTEM_FILE = Path("/etc/media-scanner.yaml")


def system_file() -> Path | None:
    """The system's configuration, if there is one."""
    return SYSTEM_FILE if SYSTEM_FILE.exists() else None


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        default_factory=system_file,
        show_default=False,
        help=f"Configuration, if not {SYSTEM_FILE}.",
    ),
]
