"""Which version of the product this is."""

from importlib.metadata import PackageNotFoundError, version


def product_version() -> str:
    """Of the installed package; "unknown" where it runs from a folder."""
    try:
        return version("matrix-media-scanner")
    except PackageNotFoundError:
        return "unknown"
