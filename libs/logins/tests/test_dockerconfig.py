from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.errors import FormatError
from lazylayer_logins.dockerconfig import DockerAuths, canonical_host, decode_legacy_config, host_of_key


def auths(*keys: str, patterns: bool = False) -> DockerAuths:
    content = {"auths": {key: {"username": key, "password": "secret"} for key in keys}}
    return DockerAuths.decode(json.dumps(content).encode(), patterns=patterns)


def owner(table: DockerAuths, image: str) -> str:
    """The key whose entry is used for `host/repository`."""
    host, _, repository = image.partition("/")
    found = table.find(host, repository, "test")
    return found.username if found is not None else ""


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("*.kubernetes.io", "prefix.kubernetes.io/app"),
        ("prefix*.kubernetes.io", "prefix-good.kubernetes.io/app"),
        ("*.kubernetes.io/prefix", "prefix.kubernetes.io/prefix/app"),
        ("*.kubernetes.io:5000", "prefix.kubernetes.io:5000/app"),
        ("*.*.kubernetes.io", "a.b.kubernetes.io/app"),
        ("registry.example.com/team/", "registry.example.com/team/app"),
        ("https://registry.example.com/v1/team", "registry.example.com/team/app"),
        ("https://registry.example.com/v2/", "registry.example.com/any"),
        ("REGISTRY.example.com", "registry.example.com/any"),
    ],
)
def test_key_fits_as_the_kubelet_reads_it(key: str, image: str) -> None:
    table = auths(key, patterns=True)
    assert owner(table, image) == key
    host, _, repository = image.partition("/")
    assert table.specificity(host, repository) is not None


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("*.kubernetes.io", "kubernetes.io/app"),
        ("*.kubernetes.io", "a.b.kubernetes.io/app"),
        ("*.kubernetes.io", "prefix.kubernetes.io:5000/app"),
        ("*.kubernetes.io:5000", "prefix.kubernetes.io/app"),
        ("*.kubernetes.io/prefix", "prefix.kubernetes.io/other/app"),
        ("*", "registry.example.com/app"),
        ("registry.example.com/team", "registry.example.com/teams/app"),
        ("[a", "[b/app"),
        ("", "registry.example.com/app"),
    ],
)
def test_key_does_not_fit(key: str, image: str) -> None:
    table = auths(key, patterns=True)
    assert owner(table, image) == ""
    host, _, repository = image.partition("/")
    assert table.specificity(host, repository) is None


def test_specific_key_wins_and_placeholders_do_not() -> None:
    table = auths("*.example.com", "a.example.com", "a.example.com/team", "https://a.example.com/v2/", patterns=True)
    images = ["a.example.com/team/app", "a.example.com/app", "b.example.com/app"]
    assert [owner(table, image) for image in images] == ["a.example.com/team", "a.example.com", "*.example.com"]
    content = {"auths": {"a.example.com/team": {}, "a.example.com": {"username": "ann", "password": "x"}}}
    assert owner(DockerAuths.decode(json.dumps(content).encode()), "a.example.com/team/app") == "ann"


def test_check_finds_the_broken_entry() -> None:
    auths("a.example.com").check()
    broken = DockerAuths.decode(b'{"auths": {"good": {}, "bad": {"auth": "hunter2"}}}')
    with pytest.raises(FormatError, match=r"entry 'bad' of auths: its auth is") as error:
        broken.check()
    assert "hunter2" not in str(error.value)


def test_legacy_form_has_no_table_around() -> None:
    table = decode_legacy_config(json.dumps({"a.example.com": {"auth": base64.b64encode(b"ann:x").decode()}}).encode())
    assert owner(table, "a.example.com/app") == "ann"
    assert len(table) == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b'{"auths": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_configuration(data: bytes) -> None:
    with pytest.raises(FormatError):
        DockerAuths.decode(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_format_error(data: bytes) -> None:
    for decode in (DockerAuths.decode, decode_legacy_config):
        try:
            decode(data).check()
        except FormatError:
            continue


names = st.from_regex(r"[a-z0-9]{1,3}(\.[a-z0-9]{1,3}){0,2}(:[0-9]{1,2})?", fullmatch=True)


@given(st.lists(names, max_size=5, unique=True), names, st.booleans())
def test_plain_keys_are_for_their_own_host_only(keys: list[str], host: str, patterns: bool) -> None:
    assert owner(auths(*keys, patterns=patterns), f"{host}/app") == (host if host in keys else "")


@given(names)
def test_canonical_hosts_are_canonical(host: str) -> None:
    assert canonical_host(canonical_host(host)) == canonical_host(host)
    assert host_of_key(f"https://{host}/v1/") == canonical_host(host) == host_of_key(host)


def test_what_is_nested_too_deeply_is_an_error() -> None:
    with pytest.raises(FormatError, match="nested too deeply"):
        DockerAuths.decode(b'{"auths":' * 50_000 + b"1" + b"}" * 50_000)


def test_a_login_outside_ascii_is_an_error() -> None:
    auths = DockerAuths.decode('{"auths": {"registry.test": {"auth": "é"}}}'.encode())
    with pytest.raises(FormatError, match="base64"):
        auths.find("registry.test", "image", "it")
