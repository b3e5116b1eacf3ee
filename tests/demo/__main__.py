"""`make demo`: a real homeserver, the scanner in front of it, and two people who send each other files.

Exit status: 0 if every line of the table is as expected, 1 if not or if something did not start, 130 after
an interruption. The scanner's policy is what MEDIA_SCANNER__POLICY__... say; other variables do not count.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from scanner.config import PREFIX
from scanner.web.routes import API
from tests.demo.interruption import Interruption
from tests.demo.screen import Screen, save_picture
from tests.demo.servers import Signatures, servers
from tests.demo.shared_files import shared_files
from tests.demo.story import opening
from tests.e2e.product import Product
from tests.e2e.synapse import Synapse, User

_FAILURES = (AssertionError, RuntimeError, OSError, aiohttp.ClientError)


def main() -> int:
    """The exit status."""
    options = _options()
    _prepare()
    interruption = Interruption()
    interruption.install()
    screen = Screen()
    try:
        _demonstrate(options, screen, interruption)
    except KeyboardInterrupt:
        screen.say("Interrupted.")
        return 130
    except _FAILURES as failure:
        screen.console.print(f"The demo failed: {failure}", style="red", markup=False)
        return 1
    return 0 if screen.board.as_expected else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description="The scanner at work.")
    parser.add_argument("--once", action="store_true", help="end after the table")
    parser.add_argument("--signatures", type=Signatures, choices=list(Signatures), default=Signatures.TEST)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="save the table as SVG")
    return parser.parse_args()


def _prepare() -> None:
    """Let nothing around change what is shown."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        if not name.startswith(f"{PREFIX}POLICY__"):
            del os.environ[name]
    os.environ["no_proxy"] = "*"  # everything is on loopback
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    logging.getLogger("nio").addHandler(logging.NullHandler())


def _demonstrate(options: argparse.Namespace, screen: Screen, interruption: Interruption) -> None:
    banner = options.signatures.banner
    screen.banner(banner)
    with tempfile.TemporaryDirectory(prefix="media-scanner-demo-") as name:
        directory = Path(name)
        tempfile.tempdir = name  # for the servers, too: all goes with it
        with servers(directory, options.signatures, screen) as (synapse, product):
            by_hand = interruption.run(_play(synapse, product, directory, screen))
            screen.summary()
            if options.picture:
                save_picture(options.picture, screen.board, banner)
            if not options.once:
                _stay(by_hand, screen)


async def _play(synapse: Synapse, product: Product, directory: Path, screen: Screen) -> list[str]:
    """Fill the table; returns two commands to go on with."""
    async with AsyncExitStack() as stack:
        with screen.step("Alice and Bob log in and open an encrypted room"):
            story = await stack.enter_async_context(opening(synapse, product, directory))
        files = shared_files()
        with screen.table():
            for file in files:
                screen.sending(file.title)
                screen.add(await story.share(file))
                if file.encrypted and not file.withheld:
                    screen.add(await story.steal(file))
        plain_eicar = next(file for file in files if file.withheld and not file.encrypted)
        return [
            _curl(f"{base}/download/{story.mxc(plain_eicar).removeprefix('mxc://')}", story.reader)
            for base in (product.url + API, f"{synapse.url}/_matrix/client/v1/media")
        ]


def _curl(url: str, user: User) -> str:
    return f"curl -sw '\\n' -H 'Authorization: Bearer {user.token}' {url}"


def _stay(by_hand: list[str], screen: Screen) -> None:
    """Until somebody has seen enough."""
    screen.say("\nTry it by hand: Bob asks for EICAR, first through the scanner, then past it.\n")
    for command in by_hand:
        screen.say(command)
    screen.say("\nCtrl-C ends it all.")
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        screen.say("Stopping.")


if __name__ == "__main__":
    sys.exit(main())
