"""Registries and mirrors configured in our own tables and in containerd's files."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from lazylayer.api.units import with_units
from lazylayer.errors import ConfigurationError
from lazylayer_resolver_registry import hosts
from lazylayer_resolver_registry.endpoints import CAPABILITIES, Endpoint
from lazylayer_resolver_registry.hosts import Hosts
from lazylayer_resolver_registry.options import ResolverOptions


def endpoints(host: str, plain_http: tuple[str, ...] = (), /, **resolver: object) -> tuple[Endpoint, ...]:
    return Hosts(
        msgspec.convert(with_units(resolver, ResolverOptions), ResolverOptions, strict=True), plain_http
    ).endpoints(host)


def urls(host: str, plain_http: tuple[str, ...] = (), /, **resolver: object) -> list[str]:
    return [each.url for each in endpoints(host, plain_http, **resolver)]


class Directory:
    """A directory of registry hosts in containerd's format."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, host: str, text: str, name: str = "hosts.toml") -> Path:
        file = self.root / host / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return file

    def endpoints(self, host: str) -> tuple[Endpoint, ...]:
        return endpoints(host, config_path=[str(self.root)])

    def urls(self, host: str) -> list[str]:
        return [each.url for each in self.endpoints(host)]


@pytest.fixture(autouse=True)
def no_usual_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore this machine's own directories."""
    monkeypatch.setattr(hosts, "_USUAL_DIRECTORIES", ())


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


# --- nothing configured ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("registry.test", "https://registry.test/v2"),
        ("registry.test:5000", "https://registry.test:5000/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
    ],
)
def test_a_registry_is_where_its_name_says(host: str, url: str) -> None:
    (origin,) = endpoints(host)
    assert (origin.url, origin.login, origin.namespace, origin.mirror) == (url, host, "", False)
    assert origin.capabilities == set(CAPABILITIES)


# --- [[resolver.hosts]] ------------------------------------------------------------------------------


def test_mirrors_come_before_the_origin() -> None:
    hosts = [{"host": "docker.io", "mirrors": [{"url": "one.test"}, {"url": "http://two.test:5000/cache"}]}]
    one, two, origin = endpoints("docker.io", hosts=hosts)
    assert [one.url, two.url] == ["https://one.test/v2", "http://two.test:5000/cache/v2"]
    assert origin.url == "https://registry-1.docker.io/v2"
    assert [each.login for each in (one, two, origin)] == ["one.test", "two.test:5000", "docker.io"]
    assert [each.namespace for each in (one, two, origin)] == ["docker.io", "docker.io", ""]
    assert [each.mirror for each in (one, two, origin)] == [True, True, False]
    assert one.capabilities == {"pull", "resolve"}


def test_a_server_stands_for_a_registry() -> None:
    (origin,) = endpoints("registry.test", hosts=[{"host": "registry.test", "server": "http://10.0.0.1:5000"}])
    assert (origin.url, origin.login, origin.namespace) == (
        "http://10.0.0.1:5000/v2",
        "10.0.0.1:5000",
        "registry.test",
    )


def test_a_star_is_for_every_other_registry() -> None:
    hosts = [
        {"host": "*", "mirrors": [{"url": "mirror.test"}]},
        {"host": "registry.test"},
    ]
    assert urls("other.test", hosts=hosts) == ["https://mirror.test/v2", "https://other.test/v2"]
    assert urls("registry.test", hosts=hosts) == ["https://registry.test/v2"]


def test_plain_http_is_for_the_host_that_it_names() -> None:
    assert urls("registry.test", ("registry.test",)) == ["http://registry.test/v2"]
    assert urls("other.test", ("registry.test",)) == ["https://other.test/v2"]


def test_what_is_configured_of_a_place_is_kept(tmp_path: Path) -> None:
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).touch()
    mirror = {
        "url": "https://mirror.test/api",
        "capabilities": ["pull"],
        "ca": str(tmp_path / "ca.pem"),
        "client": [[str(tmp_path / "client.pem"), str(tmp_path / "client.key")]],
        "skip_verify": True,
        "header": {"X-Team": "blue", "X-Many": ["a", "b"]},
        "override_path": True,
        "dial_timeout": "1m1.5s",
        "idle_timeout": 7,
        "proxy": "http://proxy.test:3128",
    }
    found = endpoints("registry.test", hosts=[{"host": "registry.test", "mirrors": [mirror]}])[0]
    assert found.url == "https://mirror.test/api"
    assert found.capabilities == {"pull"}
    assert found.headers == (("X-Team", "blue"), ("X-Many", "a"), ("X-Many", "b"))
    connection = found.connection
    assert connection.ca == (str(tmp_path / "ca.pem"),)
    assert connection.client == ((str(tmp_path / "client.pem"), str(tmp_path / "client.key")),)
    assert (connection.skip_verify, connection.connect_timeout, connection.idle_timeout) == (True, 61.5, 7)
    assert connection.proxy == "http://proxy.test:3128"
    elsewhere = connection.elsewhere()
    assert (elsewhere.ca, elsewhere.client, elsewhere.skip_verify, elsewhere.proxy) == (connection.ca, (), False, "")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"server": "ftp://registry.test"}, "invalid registry URL"),
        ({"server": "https://user:secret@registry.test"}, "configure a keychain"),
        ({"server": "https://registry.test?x=1"}, "invalid registry URL"),
        ({"server": "https://registry.test:port"}, "invalid registry URL"),
        ({"server": "https://"}, "invalid registry URL"),
        ({"capabilities": ["fly"]}, "unknown capability fly"),
        ({"ca": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
        ({"client": [["a", "b", "c"]]}, "expected a pair"),
        ({"header": {"Range": "bytes=0-1"}}, "header Range: lazylayer sets it"),
        ({"header": {"X-A": "a\r\nX-B: b"}}, "invalid characters"),
        ({"header": {"X A": "a"}}, "invalid characters"),
        ({"proxy": "proxy.test"}, "expected http://"),
    ],
)
def test_mistakes_are_told_at_start_up(place: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        endpoints("other.test", hosts=[{"host": "registry.test", **place}])
    assert "registry.test" in str(caught.value)
    assert "secret" not in str(caught.value)


# --- as stargz-snapshotter has them ------------------------------------------------------------------


def test_mirrors_of_stargz_snapshotter_are_understood() -> None:
    host = {
        "docker.io": {
            "mirrors": [
                {"host": "one.test:5000", "insecure": True, "request_timeout_sec": 3, "header": {"X-A": ["1", "2"]}},
                {"host": "two.test", "request_timeout_sec": -1},
                {"host": "localhost:5000"},
            ]
        }
    }
    found = endpoints("docker.io", host=host, request_timeout_sec=30)
    assert [each.url for each in found] == [
        "http://one.test:5000/v2",
        "https://two.test/v2",
        "http://localhost:5000/v2",
        "https://registry-1.docker.io/v2",
    ]
    assert [each.connection.idle_timeout for each in found] == [3, 0, 30, None]
    assert found[0].headers == (("X-A", "1"), ("X-A", "2"))
    assert urls("registry.test", host=host) == ["https://registry.test/v2"]


def test_a_mirror_of_stargz_snapshotter_has_no_path() -> None:
    with pytest.raises(ConfigurationError, match="expected name"):
        endpoints("docker.io", host={"docker.io": {"mirrors": [{"host": "one.test/path"}]}})


# --- containerd's hosts.toml -------------------------------------------------------------------------


def test_hosts_are_asked_in_the_order_of_the_file(directory: Directory) -> None:
    directory.write(
        "docker.io",
        """
        server = "https://registry-1.docker.io"
        [host."https://zebra.test"]
          capabilities = ["pull"]
        [host."https://antelope.test/v2/"]
          [host."https://antelope.test/v2/".header]
            X-Team = "blue"
        """,
    )
    zebra, antelope, origin = directory.endpoints("docker.io")
    assert (zebra.url, zebra.capabilities, zebra.namespace) == (
        "https://zebra.test/v2",
        frozenset({"pull"}),
        "docker.io",
    )
    assert (antelope.url, antelope.headers) == ("https://antelope.test/v2", (("X-Team", "blue"),))
    assert antelope.capabilities == set(CAPABILITIES)
    assert (origin.url, origin.login, origin.namespace) == ("https://registry-1.docker.io/v2", "docker.io", "")


def test_without_a_server_the_registry_itself_is_the_last(directory: Directory) -> None:
    directory.write("_default", '[host."https://mirror.test"]')
    assert directory.urls("registry.test:5000") == ["https://mirror.test/v2", "https://registry.test:5000/v2"]


@pytest.mark.parametrize("name", ["registry.test_5000_", "registry.test:5000"])
def test_a_port_is_written_in_either_way(directory: Directory, name: str) -> None:
    directory.write("_default", 'server = "https://default.test"')
    directory.write(name, 'server = "https://found.test"')
    assert directory.urls("registry.test:5000") == ["https://found.test/v2"]
    assert directory.urls("registry.test") == ["https://default.test/v2"]


def test_files_are_found_beside_the_file(directory: Directory) -> None:
    directory.write("registry.test", "", "ca.crt")
    directory.write("registry.test", "", "me.pem")
    directory.write("registry.test", 'ca = "ca.crt"\nclient = ["me.pem"]\nskip_verify = false')
    (origin,) = directory.endpoints("registry.test")
    here = directory.root / "registry.test"
    assert origin.connection.ca == (str(here / "ca.crt"),)
    assert origin.connection.client == ((str(here / "me.pem"), ""),)


def test_docker_s_certificate_files_do_without_a_table(directory: Directory) -> None:
    for name in ("ca.crt", "client.cert", "client.key", "other.cert"):
        directory.write("registry.test", "", name)
    (origin,) = directory.endpoints("registry.test")
    here = directory.root / "registry.test"
    assert origin.url == "https://registry.test/v2"
    assert origin.connection.ca == (str(here / "ca.crt"),)
    assert origin.connection.client == (
        (str(here / "client.cert"), str(here / "client.key")),
        (str(here / "other.cert"), ""),
    )


def test_the_first_directory_that_knows_a_registry_is_used(tmp_path: Path) -> None:
    one, two = Directory(tmp_path / "one"), Directory(tmp_path / "two")
    for each in (one, two):
        each.root.mkdir()
    one.write("registry.test", 'server = "https://one.test"')
    two.write("registry.test", 'server = "https://two.test"')
    two.write("other.test", 'server = "https://two.test"')
    path = f"{one.root}:{two.root}:/nowhere"
    assert urls("registry.test", config_path=path) == ["https://one.test/v2"]
    assert urls("other.test", config_path=path) == ["https://two.test/v2"]


def test_containerd_s_own_directories_come_last(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_USUAL_DIRECTORIES", ("/nowhere", str(directory.root)))
    directory.write("_default", 'server = "https://usual.test"')
    assert urls("registry.test") == ["https://usual.test/v2"]
    assert urls("registry.test", config_path=[]) == ["https://registry.test/v2"]
    assert urls("registry.test", hosts=[{"host": "*", "server": "https://ours.test"}]) == ["https://ours.test/v2"]


def test_usual_directories_that_may_not_be_read_are_left_out(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_USUAL_DIRECTORIES", (str(directory.root),))
    directory.write("registry.test", 'server = "https://usual.test"')
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may read everything
    assert urls("registry.test") == ["https://registry.test/v2"]


def test_a_directory_that_cannot_be_looked_into_is_named(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.write("registry.test", "")

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(ConfigurationError, match=r"registry\.test: cannot read it: Permission denied"):
        directory.urls("registry.test")


def test_a_change_of_the_file_counts_at_once(directory: Directory) -> None:
    hosts = Hosts(ResolverOptions(config_path=[str(directory.root)]))
    directory.write("registry.test", 'server = "https://one.test"')
    assert hosts.endpoints("registry.test")[0].url == "https://one.test/v2"
    directory.write("registry.test", 'server = "https://two.test"')
    assert hosts.endpoints("registry.test")[0].url == "https://two.test/v2"


def test_our_own_table_is_stronger(directory: Directory) -> None:
    directory.write("registry.test", 'server = "https://file.test"')
    hosts = [{"host": "registry.test", "server": "table.test"}, {"host": "*", "server": "star.test"}]
    path = [str(directory.root)]
    assert urls("registry.test", hosts=hosts, config_path=path) == ["https://table.test/v2"]
    assert urls("registry.test", hosts=hosts[1:], config_path=path) == ["https://file.test/v2"]


def test_keys_of_newer_versions_are_passed_over(directory: Directory) -> None:
    directory.write("registry.test", 'server = "https://one.test"\nnew_key = 1\n[host."two.test"]\nanother = true')
    assert directory.urls("registry.test") == ["https://two.test/v2", "https://one.test/v2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server =", "not TOML"),
        ("server = 3", "server"),
        ('[host."https://m.test"]\ncapabilities = ["walk"]', "unknown capability walk"),
        ('skip_verify = "yes"', "skip_verify"),
    ],
)
def test_a_file_that_cannot_be_understood_is_an_error(directory: Directory, text: str, said: str) -> None:
    file = directory.write("registry.test", text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        directory.endpoints("registry.test")
    assert str(file) in str(caught.value)


def test_a_name_does_not_leave_the_directory(directory: Directory) -> None:
    (directory.root / "hosts.toml").write_text('server = "https://wrong.test"')
    inner = Directory(directory.root / "inner")
    inner.root.mkdir()
    assert endpoints("..", config_path=[str(inner.root)])[0].url != "https://wrong.test/v2"
