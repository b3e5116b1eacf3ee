"""What the segments of a path name."""

from __future__ import annotations

import pytest

from scanner.errors import InvalidMedia
from scanner.media import MediaRef
from scanner.web.paths import filename_in, ref_in


def test_segments_are_decoded_once() -> None:
    assert ref_in({"server": "example.org%3A8448", "media": "%61bc"}) == MediaRef("example.org:8448", "abc")


@pytest.mark.parametrize("media", ["", "%2e%2e", "a%2Fb", "a%00", "%ff", "%2561", "a" * 256])
def test_what_names_no_media_is_refused(media: str) -> None:
    with pytest.raises(InvalidMedia):
        ref_in({"server": "example.org", "media": media})


@pytest.mark.parametrize(
    ("segment", "filename"), [("a%20b.png", "a%20b.png"), ("é", "%C3%A9"), ("a%2Fb", "a%2Fb"), ("", None)]
)
def test_a_file_name_is_encoded_anew(segment: str, filename: str | None) -> None:
    assert filename_in({"filename": segment}) == filename


@pytest.mark.parametrize("segment", [".", "..", "%2e", "%2E%2e"])
def test_a_dot_segment_is_no_file_name(segment: str) -> None:
    with pytest.raises(InvalidMedia):
        filename_in({"filename": segment})
