from __future__ import annotations

import asyncio
import gc
import socket
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from scanner.clamd.protocol import (
    FRAME,
    MAX_REPLY,
    ClamdAddress,
    Reply,
    parse_reply,
    scan_descriptor,
    scan_stream,
)
from scanner.errors import EngineError
from tests.clamd.fake_clamd import (
    Behaviour,
    Connection,
    FakeClamd,
    found,
    hang_up,
    ok,
    says,
    says_and_stays,
    says_early,
    stall,
    stall_after_sample,
)
from tests.clamd.samples import sample
from tests.fake_homeserver import until

LIMIT = 0.1  # seconds; a deadline that is meant to strike


@pytest.fixture(params=["FILDES", "INSTREAM over unix", "INSTREAM over TCP"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def scan(fake: FakeClamd, transport: str, data: bytes = b"x" * 1000) -> Reply:
    with sample(data) as given_sample:
        if transport == "FILDES":
            return await scan_descriptor(fake.unix, given_sample)
        return await scan_stream(fake.tcp if "TCP" in transport else fake.unix, given_sample)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("unix:/run/clamd.sock", "unix:/run/clamd.sock"),
        ("tcp:clamav:3310", "tcp:clamav:3310"),
        ("tcp:192.0.2.1:1", "tcp:192.0.2.1:1"),
        ("tcp:[::1]:65535", "tcp:[::1]:65535"),
    ],
)
def test_an_address_is_printed_as_it_is_written(text: str, printed: str) -> None:
    address = ClamdAddress.parse(text)
    assert str(address) == printed
    assert address.local == text.startswith("unix")


@pytest.mark.parametrize(
    "text",
    [
        *("", "unix:", "unix:relative", "unix:/" + 107 * "x", "/run/clamd.sock", "embedded"),
        *(
            "tcp:",
            "tcp:3310",
            "tcp:host",
            "tcp::3310",
            "tcp:host:0",
            "tcp:host:65536",
            "tcp:host:+1",
            "udp:h:1",
        ),
    ],
)
def test_an_address_that_nobody_can_listen_on_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|at most"):
        ClamdAddress.parse(text)


async def test_an_exact_ok_is_clean(tmp_path: Path, transport: str) -> None:
    async with FakeClamd(tmp_path, ok) as fake:
        assert await scan(fake, transport) == Reply(None)


async def test_a_finding_has_its_name(tmp_path: Path, transport: str) -> None:
    async with FakeClamd(tmp_path, found) as fake:
        assert await scan(fake, transport) == Reply("Eicar-Test-Signature")


async def test_replies_may_arrive_byte_by_byte(tmp_path: Path, transport: str) -> None:
    text = b"fd[10]: A.B FOUND\n" if transport == "FILDES" else b"stream: A.B FOUND\n"
    async with FakeClamd(tmp_path, says(*(bytes([byte]) for byte in text))) as fake:
        assert await scan(fake, transport) == Reply("A.B")


@pytest.mark.parametrize(
    "name",
    ["OK", "PREFIX: OK", "a b", "FOUND", "ERROR", "\x1b[2J", "é漢", "x" * 3000, "'; --", "</td>", " ", "\r"],
)
async def test_a_hostile_name_is_still_a_finding(tmp_path: Path, name: str) -> None:
    async with FakeClamd(tmp_path, says(f"stream: {name} FOUND\0".encode())) as fake:
        assert await scan(fake, "INSTREAM") == Reply(name.replace("PREFIX", "stream"))


ODD_REPLIES = [
    (b"", "eof"),
    (b"P", "eof"),
    (b"PREFIX: OK", "eof"),
    (b"PREFIX: Eicar FOUND", "eof"),
    (b"PONG\0", "error"),
    (b"OK\0", "error"),
    (b": OK\0", "error"),
    (b"PREFIX: ok\0", "error"),
    (b"PREFIX: O\0", "error"),
    (b"PREFIX: NOT OK\0", "error"),
    (b"PREFIX: OK \0", "error"),
    (b"PREFIX:  OK\0", "error"),
    (b"PREFIX:OK\0", "error"),
    (b" PREFIX: OK\0", "error"),
    (b"\xef\xbb\xbfPREFIX: OK\0", "error"),
    (b"PREFIX: OK\r\n", "error"),
    (b"PREFIX: OK\0\n", "error"),
    (b"PREFIX: OK\0\0", "error"),
    (b"\0PREFIX: OK\0", "error"),
    (b"PREFIX: OK\0PREFIX: OK\0", "error"),
    (b"PREFIX: OK\0PREFIX: Eicar FOUND\0", "error"),
    (b"PREFIX: Eicar FOUND\0PREFIX: OK\0", "error"),
    (b"PREFIX: Eicar FOUND\nPREFIX: OK\n", "error"),
    (b"PREFIX: OK\0garbage", "eof"),
    (b"PREFIX: OK\0garbage\n", "error"),
    (b"1: PREFIX: OK\0", "error"),
    (b"fd[]: OK\0", "error"),
    (b"fd[x]: OK\0", "error"),
    (b"fd[-1]: OK\0", "error"),
    (b"/etc/passwd: OK\0", "error"),
    (b"instream(local): OK\0", "error"),
    (b"PREFIX: FOUND\0", "error"),
    (b"PREFIX:  FOUND\0", "error"),
    (b"PREFIX: Eicar found\0", "error"),
    (b"PREFIX: \xff\xfe FOUND\0", "error"),
    (b"PREFIX: Empty file\0", "error"),
    (b"PREFIX: Excluded\0", "error"),
    (b"PREFIX: " + MAX_REPLY * b"x" + b" FOUND\0", "error"),
    (b"PREFIX: OK\0" + 2 * MAX_REPLY * b"x", "error"),
    (b"UNKNOWN COMMAND\0", "error"),
    (b"COMMAND READ TIMED OUT\n", "timeout"),
    (b"PREFIX: Exceeded time limit ERROR\0", "timeout"),
    (b"INSTREAM size limit exceeded. ERROR\0", "limit"),
    (b"PREFIX: Exceeded max scan size ERROR\0", "limit"),
    (b"Error writing to temporary file ERROR\0", "error"),
    (b"PREFIX: Can't write to file ERROR\0", "error"),
    (b"PREFIX: Can't allocate memory ERROR\0", "error"),
    (b"PREFIX: Not a regular file ERROR\0", "error"),
    (b"PREFIX: OK ERROR\0", "error"),
    (b"No file descriptor received. ERROR\0", "error"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "error"),
    (b"\xff" * 100 + b"\0", "error"),
]


@pytest.mark.parametrize(("text", "result"), ODD_REPLIES)
async def test_an_odd_reply_is_an_error(tmp_path: Path, transport: str, text: bytes, result: str) -> None:
    async with FakeClamd(tmp_path, says(text)) as fake:
        with pytest.raises(EngineError) as failed:
            await scan(fake, transport)
    assert failed.value.result == result


@pytest.mark.parametrize(("transport", "text"), [("FILDES", b"stream: OK\0"), ("INSTREAM", b"fd[3]: OK\0")])
async def test_the_reply_to_another_command_is_an_error(tmp_path: Path, transport: str, text: bytes) -> None:
    async with FakeClamd(tmp_path, says(text)) as fake:
        with pytest.raises(EngineError):
            await scan(fake, transport)


@pytest.mark.parametrize("text", [b"PREFIX: OK\0", b"PREFIX: Eicar FOUND\0"])
async def test_what_clamd_says_before_the_last_frame_counts_for_nothing(tmp_path: Path, text: bytes) -> None:
    async with FakeClamd(tmp_path, says_early(text)) as fake:
        with pytest.raises(EngineError):
            await asyncio.wait_for(scan(fake, "INSTREAM", bytes(3 * FRAME)), 10)


async def test_the_answer_of_a_clamd_that_hung_up_meanwhile_is_read(tmp_path: Path, transport: str) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.say(b"INSTREAM size limit exceeded. ERROR\0")

    async with FakeClamd(tmp_path, refuse) as fake:
        with pytest.raises(EngineError, match="size limit exceeded") as failed:
            await scan(fake, transport, bytes(20 * FRAME))
    assert failed.value.result == "limit"


@pytest.mark.parametrize("behaviour", [stall, stall_after_sample, says_and_stays(b"PREFIX: OK\0")])
async def test_a_clamd_that_stalls_is_left_at_the_callers_deadline(
    tmp_path: Path, transport: str, behaviour: Behaviour
) -> None:
    async with FakeClamd(tmp_path, behaviour) as fake:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(scan(fake, transport, bytes(20 * FRAME)), LIMIT)


async def test_a_clamd_that_hangs_up_is_no_verdict(tmp_path: Path, transport: str) -> None:
    async with FakeClamd(tmp_path, hang_up) as fake:
        with pytest.raises(EngineError) as failed:
            await scan(fake, transport, bytes(20 * FRAME))
    assert failed.value.result == "eof"


async def test_an_ok_before_a_reset_is_no_verdict(tmp_path: Path) -> None:
    """A reset discards what was still under way: nobody knows what else clamd had to say."""

    async def reset(connection: Connection) -> None:
        await connection.reader.readexactly(4)
        await connection.say(b"stream: OK\0")
        transport = connection._writer.transport  # noqa: SLF001
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, bytes([1] + 7 * [0])
        )
        transport.abort()

    async with FakeClamd(tmp_path, reset) as fake:
        with pytest.raises(EngineError):
            await scan(fake, "INSTREAM over TCP")


async def test_a_refused_connection_says_so(tmp_path: Path) -> None:
    (tmp_path / "dead.sock").touch()
    for address in (ClamdAddress(path=str(tmp_path / "dead.sock")), ClamdAddress(host="127.0.0.1", port=1)):
        with sample(b"x") as given_sample, pytest.raises(EngineError) as failed:
            await scan_stream(address, given_sample)
        assert failed.value.result == "unavailable"


async def test_a_full_backlog_does_not_hang_and_is_no_connection(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        with sample(b"x") as given_sample, pytest.raises(TimeoutError):
            await asyncio.wait_for(scan_descriptor(ClamdAddress(path=path), given_sample), LIMIT)


@pytest.mark.parametrize("behaviour", [ok, hang_up, stall])
async def test_every_descriptor_is_closed_again(tmp_path: Path, transport: str, behaviour: Behaviour) -> None:
    before = _descriptors()
    async with FakeClamd(tmp_path, behaviour) as fake:
        for _ in range(3):
            with suppress(TimeoutError, EngineError):
                await asyncio.wait_for(scan(fake, transport, bytes(20 * FRAME)), 0.05)
    await until(lambda: _descriptors() == before)  # the fake's transports close in the loop's next rounds


def _descriptors() -> int:
    gc.collect()  # a map holds its file
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (ok, Reply(None)),
        (found, Reply("Eicar-Test-Signature")),
        (says(b"PREFIX: OK\0", b"x"), "eof"),
        (hang_up, "eof"),
        (stall, "timeout"),
        (stall_after_sample, "timeout"),
    ],
)
def test_uvloop_makes_no_difference(
    tmp_path: Path, transport: str, behaviour: Behaviour, outcome: Reply | str
) -> None:
    """The service runs on uvloop, which has its own code for sockets."""

    async def run() -> Reply | str:
        async with FakeClamd(tmp_path, behaviour) as fake:
            try:
                limit = LIMIT if outcome == "timeout" else 10
                return await asyncio.wait_for(scan(fake, transport, bytes(20 * FRAME)), limit)
            except TimeoutError:
                return "timeout"
            except EngineError as problem:
                return problem.result

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == outcome


@given(st.binary(max_size=200))
def test_the_parser_is_total(reply: bytes) -> None:
    """Whatever the bytes: a statement that was made in so many words, or an EngineError."""
    try:
        parsed = parse_reply(reply)
    except EngineError as problem:
        assert problem.result in {"error", "timeout", "limit", "eof"}  # noqa: PT017
    else:
        assert reply[-1:] in {b"\0", b"\n"}
        assert reply[:-1].decode() == (
            "stream: OK" if parsed.found is None else f"stream: {parsed.found} FOUND"
        )


@given(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1))
def test_no_name_makes_a_finding_clean(name: str) -> None:
    assert parse_reply(f"stream: {name} FOUND\0".encode()).found == name


@given(st.sampled_from([b"stream: OK\0", b"stream: A FOUND\n", b"stream: OK\0x", b"x ERROR\0"]), st.data())
def test_the_pieces_in_which_a_reply_arrives_do_not_matter(text: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1))))
    pieces = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]

    async def outcome(*pieces: bytes) -> str:
        with tempfile.TemporaryDirectory() as directory:
            async with FakeClamd(Path(directory), says(*pieces)) as fake:
                try:
                    return repr(await scan(fake, "INSTREAM"))
                except EngineError as problem:
                    return repr(problem)

    assert asyncio.run(outcome(*pieces)) == asyncio.run(outcome(text))
