"""Challenges, ranges and addresses, without any network."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.byteranges import ByteRange
from lazylayer.errors import UnavailableError
from lazylayer_resolver_registry.challenges import Challenge, parse_challenges
from lazylayer_resolver_registry.ranges import MisplacedBytesError, parts, range_header, total_size, wanted
from lazylayer_resolver_registry.urls import base_url, check_target, same_origin


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("Basic", [Challenge("basic", {})]),
        ('Basic realm="a b"', [Challenge("basic", {"realm": "a b"})]),
        (
            'Bearer realm="https://auth.test/token",service="reg",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://auth.test/token", "service": "reg", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            'Bearer realm=x, Basic realm="y\\"z"',
            [Challenge("bearer", {"realm": "x"}), Challenge("basic", {"realm": 'y"z'})],
        ),
        ("", []),
        ("===", []),
    ],
)
def test_challenges_are_read(header: str, challenges: list[Challenge]) -> None:
    assert parse_challenges([header]) == challenges


@given(st.lists(st.text(max_size=100), max_size=3))
def test_no_header_breaks_the_reader(headers: list[str]) -> None:
    parse_challenges(headers)


def multipart(data: bytes, ranges: list[tuple[int, int]], boundary: str = "b0") -> bytes:
    body = bytearray()
    for start, end in ranges:
        head = f"\r\n--{boundary}\r\nContent-Type: x/y\r\nContent-Range: bytes {start}-{end - 1}/{len(data)}\r\n\r\n"
        body += head.encode() + data[start:end]
    return bytes(body) + f"\r\n--{boundary}--\r\n".encode()


def answer(body: bytes, cuts: list[int], kind: str = "multipart/byteranges; boundary=b0") -> httpx.Response:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(places) if end > start]
    return httpx.Response(206, headers={"Content-Type": kind}, stream=Pieces(pieces))


def read_parts(response: httpx.Response) -> Iterator[tuple[int, bytes]]:
    return parts(response, response.iter_raw())


class Pieces(httpx.SyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from self._pieces


@given(
    data=st.binary(min_size=50, max_size=50),
    points=st.lists(st.integers(0, 50), min_size=2, max_size=8, unique=True),
    cuts=st.lists(st.integers(0, 900), max_size=10),
)
def test_parts_are_read_however_they_are_cut(data: bytes, points: list[int], cuts: list[int]) -> None:
    points = sorted(points)[: len(points) // 2 * 2]
    ranges = [ByteRange(start, end) for start, end in zip(points[::2], points[1::2], strict=True)]
    got = list(wanted(read_parts(answer(multipart(data, [(a, b) for a, b in ranges]), cuts)), ranges))
    assert b"".join(piece for _, piece in got) == b"".join(data[start:end] for start, end in ranges)
    assert all(data[offset : offset + len(piece)] == piece for offset, piece in got)


@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_no_body_in_parts_breaks_the_reader(body: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(MisplacedBytesError):
        list(read_parts(answer(body, cuts)))


@pytest.mark.parametrize("kind", ["multipart/byteranges", "text/plain"])
def test_bytes_without_a_place_are_refused(kind: str) -> None:
    with pytest.raises(MisplacedBytesError):
        list(read_parts(answer(b"data", [], kind)))


def test_only_what_was_asked_for_is_passed_on() -> None:
    arriving = iter([(0, b"0123"), (4, b"4567"), (8, b"89")])
    assert list(wanted(arriving, [ByteRange(1, 2), ByteRange(3, 6)])) == [(1, b"1"), (3, b"3"), (4, b"45")]


def test_a_gap_is_noticed() -> None:
    with pytest.raises(MisplacedBytesError, match="byte 5 arrived, expected byte 2"):
        list(wanted(iter([(0, b"01"), (5, b"5")]), [ByteRange(0, 8)]))


def test_ranges_are_written_and_sizes_read() -> None:
    assert range_header([ByteRange(0, 1), ByteRange(5, 10)]) == "bytes=0-0, 5-9"
    partial = httpx.Response(206, headers={"Content-Range": "bytes 0-0/17"})
    unknown = httpx.Response(206, headers={"Content-Range": "bytes 0-0/*"})
    whole = httpx.Response(200, headers={"Content-Length": "17"})
    assert [total_size(each) for each in (partial, unknown, whole)] == [17, None, 17]


@pytest.mark.parametrize(
    ("host", "plain_http", "url"),
    [
        ("docker.io", False, "https://registry-1.docker.io"),
        ("registry.test", False, "https://registry.test"),
        ("registry.test:5000", True, "http://registry.test:5000"),
        ("localhost:5000", False, "http://localhost:5000"),
        ("127.0.0.1:5000", False, "http://127.0.0.1:5000"),
        ("[::1]:5000", False, "http://[::1]:5000"),
        ("localhost:443", False, "https://localhost"),
        ("localhost", False, "https://localhost"),
    ],
)
def test_hosts_lead_to_addresses(host: str, plain_http: bool, url: str) -> None:
    assert str(base_url(host, plain_http)) == url


@pytest.mark.parametrize(
    ("target", "registry", "allowed"),
    [
        ("https://storage.test/x", "https://registry.test", True),
        ("http://storage.test/x", "https://registry.test", False),
        ("http://storage.test/x", "http://registry.test", True),
        ("file:///etc/passwd", "http://registry.test", False),
        ("ftp://storage.test/x", "http://registry.test", False),
        ("https://127.0.0.1/x", "https://registry.test", False),
        ("https://localhost/x", "https://registry.test", False),
        ("https://[::1]/x", "https://registry.test", False),
        ("https://[::ffff:127.0.0.1]/x", "https://registry.test", False),
        ("http://169.254.169.254/latest", "http://registry.test", False),
        ("https://[fe80::1]/x", "https://registry.test", False),
        ("https://0.0.0.0/x", "https://registry.test", False),
        ("https://127.1/x", "https://registry.test", False),
        ("https://2130706433/x", "https://registry.test", False),
        ("https://0x7f000001/x", "https://registry.test", False),
        ("https://127.0.0.1./x", "https://registry.test", False),
        ("https://localhost./x", "https://registry.test", False),
        ("http://169.254.43518/latest", "http://registry.test", False),
        ("https://0/x", "https://registry.test", False),
        ("https://[64:ff9b::7f00:1]/x", "https://registry.test", False),
        ("https://[64:ff9b::a9fe:a9fe]/x", "https://registry.test", False),
        ("http://[fd00:ec2::254]/latest", "http://registry.test", False),
        ("http://metadata.google.internal/x", "http://registry.test", False),
        ("http://100.100.100.200/latest", "http://registry.test", False),
        ("https://[64:ff9b::a00:7]/x", "https://registry.test", True),
        ("https://0x7f.storage.test/x", "https://registry.test", True),
        ("http://127.0.0.1:9000/x", "http://127.0.0.1:5000", True),
        ("https://10.0.0.7/x", "https://registry.test", True),
    ],
)
def test_a_registry_sends_us_only_where_it_may(target: str, registry: str, allowed: bool) -> None:
    try:
        check_target(httpx.URL(target), httpx.URL(registry), "a redirect")
        assert allowed
    except UnavailableError as error:
        assert not allowed
        assert "refused" in str(error)


def test_credentials_are_for_one_origin() -> None:
    one = httpx.URL("https://registry.test/v2/")
    assert same_origin(one, httpx.URL("https://registry.test:443/other"))
    for other in ("http://registry.test/", "https://registry.test:444/", "https://registry.test.evil.test/"):
        assert not same_origin(one, httpx.URL(other))
