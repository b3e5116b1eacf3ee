"""Detection records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.quarantine.records import DetectionRecord

texts = st.text(max_size=50)
records = st.builds(
    DetectionRecord,
    at=texts,
    sha256=texts,
    sha1=texts,
    md5=texts,
    size=st.none() | st.integers(0, 2**40),
    mime_type=texts,
    verdict=texts,
    signatures=st.lists(texts, max_size=5).map(tuple),
    engines=st.dictionaries(texts, texts, max_size=3),
    media=st.none() | texts,
    source=texts,
    encrypted=st.booleans(),
    ciphertext_sha256=st.none() | texts,
    request_id=texts,
    sample=st.none() | texts,
    missing=st.none() | texts,
    replica=st.none() | texts,
    noted_since=st.none() | texts,
    version=st.just(1),
)


@given(records)
def test_what_was_written_is_read(record: DetectionRecord) -> None:
    assert DetectionRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"version": 2}', b'{"version": 1}', b"\xff"])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        DetectionRecord.from_json(data)
