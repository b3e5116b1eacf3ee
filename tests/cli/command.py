"""The command line, as an operator runs it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scanner.cli.main import main

ROOT = Path(__file__).parents[2]


def media_scanner(*arguments: str | Path, **environ: str) -> CompletedProcess[str]:
    """Run the command line here; a fraction of what a process costs."""
    command = ["media-scanner", *map(str, arguments)]
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", command)
        for name, value in environ.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return CompletedProcess(command, code, stdout.getvalue(), stderr.getvalue())


def media_scanner_process(*arguments: str | Path, **environ: str) -> CompletedProcess[str]:
    """Run `python -m scanner` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "scanner", *map(str, arguments)],
        cwd=ROOT,
        env={"PATH": os.defpath} | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def refused(done: CompletedProcess[str]) -> str:
    """What a command said that ended with exit code 2, one line and nothing else."""
    assert (done.returncode, done.stdout) == (2, ""), done
    line = done.stderr.removesuffix("\n")
    assert line.startswith("media-scanner: "), done.stderr
    assert len(line.splitlines()) == 1, done.stderr
    return line.removeprefix("media-scanner: ")
