"""Whose certificates are believed on the way to the homeserver."""

from __future__ import annotations

import ssl
from pathlib import Path

from scanner.errors import ConfigError


def trusting(ca_file: Path, key: str) -> ssl.SSLContext:
    """Believes the certificates in a PEM file and no others; `key` is the configuration key that names it.

    Raises ConfigError.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise ConfigError(f"{key}: {ca_file}: holds no certificate in PEM") from None
    except OSError as error:
        raise ConfigError(f"{key}: {ca_file}: {error.strerror}") from None
