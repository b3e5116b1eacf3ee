"""`python -m scanner` is `media-scanner`."""

from scanner.cli.main import main

main()
