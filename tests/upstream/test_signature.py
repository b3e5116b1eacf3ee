from __future__ import annotations

import time

import pytest

from scanner.upstream.signature import addressed_server, signing_server

SIGNED = 'X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:1",sig="AbC+/"'


def test_both_servers_of_a_signed_request_are_known() -> None:
    assert (signing_server(SIGNED), addressed_server(SIGNED)) == ("a.example:8448", "b.example")


@pytest.mark.parametrize(
    "header",
    [
        "X-Matrix origin=a.example,key=k,sig=s",
        "x-matrix  Origin = a.example , key=k",
        'X-Matrix key="origin",origin="a.example"',
    ],
)
def test_older_and_other_ways_to_write_it_are_understood(header: str) -> None:
    assert signing_server(header) == "a.example"
    assert addressed_server(header) is None


@pytest.mark.parametrize("rest", ["a" * 8000, 'origin="' + "a" * 8000])
def test_a_long_header_is_read_in_no_time(rest: str) -> None:
    """Anybody may send one, and the event loop waits."""
    began = time.perf_counter()
    addressed_server(f"X-Matrix {rest}")
    assert time.perf_counter() - began < 0.05


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer origin=a",
        "X-Matrix",
        "X-Matrix ",
        'X-Matrix origin=""',
        'X-Matrix origin="a',
        'X-Matrix origin="a\\"b"',
        'X-Matrix origin="a",origin="b"',
        'X-MatrixX origin="a"',
    ],
)
def test_a_doubtful_header_names_nobody(header: str | None) -> None:
    assert signing_server(header) is None
