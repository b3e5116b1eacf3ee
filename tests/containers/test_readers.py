from __future__ import annotations

from scanner.containers.readers import Reader


def test_readers_have_the_names_of_their_libraries_or_formats() -> None:
    assert [str(reader) for reader in Reader] == ["libarchive", "zipfile", "ole2", "pdf"]
