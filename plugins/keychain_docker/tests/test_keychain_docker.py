from __future__ import annotations

import base64
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Reference
from lazylayer.errors import ConfigurationError, LazylayerError
from lazylayer_keychain_docker import DockerKeychain
from lazylayer_testing.configuring import configured

IMAGE = Reference(repository="team/app", host="registry.example.com", tag="1")
SECRET = "hunter2:with:colons"


def encode(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


class DockerHome:
    """A $DOCKER_CONFIG directory, and a keychain that reads it."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.directory = directory
        self.config = directory / "config.json"
        self.programs = programs
        self.keychain = DockerKeychain()
        self.configure()

    def configure(self, **options: object) -> None:
        configured(self.keychain, "keychain_docker", options)

    def write(self, **tables: Any) -> None:
        self.config.write_text(json.dumps(tables))

    def write_auths(self, *keys: str, username: str = "ann", password: str = SECRET) -> None:
        self.write(auths={key: {"auth": encode(username, password)} for key in keys})

    def add_helper(self, name: str, script: str) -> None:
        program = self.programs / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def get(self, host: str = IMAGE.host, repository: str = IMAGE.repository) -> Credentials | None:
        return self.keychain.lazylayer_get_credentials(host, Reference(repository=repository, host=host, tag="1"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerHome:
    (tmp_path / "docker").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return DockerHome(tmp_path / "docker", tmp_path / "bin")


class TestFile:
    def test_no_file_is_no_answer(self, home: DockerHome) -> None:
        assert home.get() is None

    def test_auth_is_name_and_password(self, home: DockerHome) -> None:
        home.write_auths("registry.example.com")
        found = home.get()
        assert found is not None
        assert (found.username, found.password) == ("ann", SECRET)
        assert str(home.config) in found.source

    def test_fields_are_name_and_password(self, home: DockerHome) -> None:
        home.write(auths={"registry.example.com": {"username": "ann", "password": SECRET}})
        found = home.get()
        assert found is not None
        assert (found.username, found.password) == ("ann", SECRET)

    def test_tokens(self, home: DockerHome) -> None:
        home.write(
            auths={
                "identity.example.com": {"auth": encode("ann", ""), "identitytoken": "refresh"},
                "bearer.example.com": {"registrytoken": "bearer"},
            }
        )
        identity, bearer = home.get("identity.example.com"), home.get("bearer.example.com")
        assert identity is not None
        assert bearer is not None
        assert (identity.identity_token, bearer.registry_token) == ("refresh", "bearer")

    @pytest.mark.parametrize("entry", [{}, {"email": "ann@example.com"}, {"auth": ""}])
    def test_placeholder_is_no_answer(self, home: DockerHome, entry: dict[str, str]) -> None:
        home.write(auths={"registry.example.com": entry})
        assert home.get() is None

    @pytest.mark.parametrize(
        "key",
        [
            "https://index.docker.io/v1/",
            "http://index.docker.io/v1/",
            "https://index.docker.io/v2/",
            "index.docker.io",
            "docker.io",
            "https://registry-1.docker.io",
            "registry-1.docker.io",
        ],
    )
    @pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io", "index.docker.io"])
    def test_spellings_of_docker_hub(self, home: DockerHome, key: str, host: str) -> None:
        home.write_auths(key)
        assert home.get(host, "library/debian") is not None
        assert home.get("registry.example.com") is None

    @pytest.mark.parametrize(
        "key",
        ["{}", "https://{}", "http://{}", "https://{}/", "https://{}/v1/", "https://{}/v2/", "https://{}/some/path"],
    )
    @pytest.mark.parametrize("host", ["registry.example.com", "registry.example.com:5000", "[2001:db8::1]:5000"])
    def test_spellings_of_a_host(self, home: DockerHome, key: str, host: str) -> None:
        home.write_auths(key.format(host))
        assert home.get(host) is not None

    @pytest.mark.parametrize(
        "other",
        [
            "example.com",
            "registry.example.com:5000",
            "registry.example.com.evil.test",
            "a-registry.example.com",
            "docker.io",
        ],
    )
    def test_other_hosts_get_nothing(self, home: DockerHome, other: str) -> None:
        home.write_auths("registry.example.com")
        assert home.get(other) is None

    def test_path_in_a_key_is_for_repositories_below(self, home: DockerHome) -> None:
        home.write(
            auths={
                "registry.example.com": {"auth": encode("host", "1")},
                "registry.example.com/team": {"auth": encode("team", "2")},
                "registry.example.com/team/app": {"auth": encode("app", "3")},
            }
        )
        names = [
            found.username for each in ("team/app", "team/other", "teams/app") if (found := home.get(repository=each))
        ]
        assert names == ["app", "team", "host"]

    def test_patterns_mean_nothing_to_docker(self, home: DockerHome) -> None:
        home.write_auths("*.example.com")
        assert home.get() is None

    def test_change_of_the_file_counts_at_once(self, home: DockerHome) -> None:
        home.write_auths("registry.example.com", password="old")
        assert home.get() is not None
        home.write_auths("registry.example.com", password="new")
        found = home.get()
        assert found is not None
        assert found.password == "new"
        home.config.unlink()
        assert home.get() is None

    def test_configured_file_wins(self, home: DockerHome, tmp_path: Path) -> None:
        home.write_auths("registry.example.com", username="wrong")
        chosen = tmp_path / "chosen.json"
        chosen.write_text(json.dumps({"auths": {"registry.example.com": {"auth": encode("right", "x")}}}))
        home.configure(config=str(chosen))
        found = home.get()
        assert found is not None
        assert found.username == "right"

    def test_file_in_the_home_directory(
        self, home: DockerHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DOCKER_CONFIG")
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".docker").mkdir()
        home.config = tmp_path / ".docker" / "config.json"
        home.write_auths("registry.example.com")
        assert home.get() is not None


class TestTroubles:
    def test_configured_file_must_be_there(self, home: DockerHome, tmp_path: Path) -> None:
        home.configure(config=str(tmp_path / "missing.json"))
        with pytest.raises(LazylayerError, match=r"keychain_docker.*missing\.json does not exist.*config names it"):
            home.get()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            '{"auths": []}',
            '{"auths": {"x": 1}, "credsStore": 5}',
            '{"credHelpers": {"x": 1}}',
            "\xff",
            '{"HttpHeaders":' + "[" * 100_000,
        ],
    )
    def test_broken_file_is_an_error(self, home: DockerHome, text: str) -> None:
        home.config.write_text(text, encoding="latin-1")
        with pytest.raises(LazylayerError, match=r"keychain_docker.*config\.json.*docker login registry\.example\.com"):
            home.get()

    @pytest.mark.parametrize(
        "entry",
        [{"auth": "%%%"}, {"auth": base64.b64encode(b"no colon").decode()}, {"auth": "/w=="}, {"password": 5}, 7],
    )
    def test_broken_entry_is_an_error_for_its_host_only(self, home: DockerHome, entry: object) -> None:
        good = {"auth": encode("ann", SECRET)}
        home.write(auths={"registry.example.com": entry, "other.example.com": good})
        with pytest.raises(LazylayerError, match=r"config\.json, entry 'registry\.example\.com' of auths"):
            home.get()
        assert home.get("other.example.com") is not None
        assert home.get("third.example.com") is None

    def test_large_file_is_an_error(self, home: DockerHome) -> None:
        home.config.write_text(" " * (4 * 1024 * 1024 + 1))
        with pytest.raises(LazylayerError, match="larger than"):
            home.get()

    def test_file_that_cannot_be_read_is_an_error(self, home: DockerHome) -> None:
        home.config.mkdir()
        with pytest.raises(LazylayerError, match=r"cannot read .*config\.json: Is a directory"):
            home.get()

    def test_unknown_option_is_an_error(self, home: DockerHome) -> None:
        with pytest.raises(ConfigurationError, match="keychain_docker"):
            home.configure(timeout=1)

    def test_errors_and_logs_hold_no_secret(self, home: DockerHome) -> None:
        lines: list[str] = []
        sink = logger.add(lambda line: lines.append(str(line)), level=0, backtrace=True, diagnose=True)
        logger.enable("lazylayer_keychain_docker")
        try:
            home.config.write_text(f'{{"auths": {{"registry.example.com": {{"password": "{SECRET}" "x"}}}}}}')
            with pytest.raises(LazylayerError) as broken:
                home.get()
            home.write_auths("registry.example.com")
            found = home.get()
        finally:
            logger.disable("lazylayer_keychain_docker")
            logger.remove(sink)
        assert SECRET not in f"{broken.value!r} {broken.value} {found!r} {found} {lines}"


ANSWER = """read server; printf '{"ServerURL":"%s","Username":"ann","Secret":"for %s"}' "$server" "$server\""""
NOT_FOUND = "cat >/dev/null; echo credentials not found in native keychain; exit 1"


class TestHelpers:
    def test_helper_of_the_host_is_asked(self, home: DockerHome) -> None:
        home.add_helper("mine", ANSWER)
        home.write(credHelpers={"registry.example.com": "mine"}, credsStore="missing")
        found = home.get()
        assert found is not None
        assert (found.username, found.password) == ("ann", "for registry.example.com")
        assert found.source == "docker-credential-mine"

    def test_store_is_asked_for_all_others(self, home: DockerHome) -> None:
        home.add_helper("mine", ANSWER)
        home.write(credsStore="mine")
        found = home.get("[::1]:5000")
        assert found is not None
        assert found.password == "for [::1]:5000"

    @pytest.mark.parametrize("key", ["docker.io", "https://index.docker.io/v1/"])
    def test_docker_hub_goes_by_its_url(self, home: DockerHome, key: str) -> None:
        home.add_helper("mine", ANSWER)
        home.write(credHelpers={key: "mine"})
        found = home.get("docker.io", "library/debian")
        assert found is not None
        assert found.password == "for https://index.docker.io/v1/"

    def test_token(self, home: DockerHome) -> None:
        home.add_helper("mine", """echo '{"Username":"<token>","Secret":"refresh"}'""")
        home.write(credsStore="mine")
        found = home.get()
        assert found is not None
        assert (found.identity_token, found.username, found.password) == ("refresh", "", "")

    @pytest.mark.parametrize("script", [NOT_FOUND, """echo '{"ServerURL":"","Username":"","Secret":""}'"""])
    def test_nothing_found_is_no_error(self, home: DockerHome, script: str) -> None:
        home.add_helper("mine", script)
        home.write(credsStore="mine")
        assert home.get() is None

    def test_entry_of_the_file_is_used_where_the_helper_has_nothing(self, home: DockerHome) -> None:
        home.add_helper("mine", NOT_FOUND)
        home.write(credsStore="mine", auths={"registry.example.com": {"auth": encode("ann", SECRET)}})
        found = home.get()
        assert found is not None
        assert found.password == SECRET

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("echo the vault is sealed; exit 3", "exit code 3: the vault is sealed"),
            ("echo no agent >&2; exit 1", "exit code 1: no agent"),
            ("exit 1", "it printed nothing"),
            ("echo hello", "printed an invalid answer"),
            ("printf '{\"x\":'; printf '[%.0s' $(seq 20000)", "printed an invalid answer"),
            ("kill -9 $$", "exit code -9"),
        ],
    )
    def test_failure_is_an_error(self, home: DockerHome, script: str, said: str) -> None:
        home.add_helper("mine", script)
        home.write(credsStore="mine", auths={"registry.example.com": {"auth": encode("ann", SECRET)}})
        with pytest.raises(LazylayerError, match=rf"keychain_docker.*config\.json.*docker-credential-mine.*{said}"):
            home.get()

    def test_missing_helper_is_an_error(self, home: DockerHome) -> None:
        home.write(credsStore="nowhere")
        with pytest.raises(LazylayerError, match="docker-credential-nowhere is not on PATH; install it"):
            home.get()

    @pytest.mark.parametrize("name", ["../../bin/sh", "a b", "-x"])
    def test_name_cannot_be_a_path(self, home: DockerHome, name: str) -> None:
        home.write(credsStore=name)
        with pytest.raises(LazylayerError, match="invalid name of a helper"):
            home.get()

    def test_program_that_cannot_be_started_is_an_error(self, home: DockerHome) -> None:
        home.add_helper("mine", "")
        (home.programs / "docker-credential-mine").write_text("#!/nowhere\n")
        home.write(credsStore="mine")
        with pytest.raises(LazylayerError, match="cannot be started"):
            home.get()

    def test_slow_helper_is_ended_with_its_children(self, home: DockerHome, tmp_path: Path) -> None:
        fifo = tmp_path / "alive"
        os.mkfifo(fifo)
        # The child holds the FIFO open for writing for as long as it lives.
        home.add_helper("mine", f"sleep 3600 >{fifo} & wait")
        home.configure(helper_timeout=0.5)
        home.write(credsStore="mine")
        closed = threading.Thread(target=fifo.read_bytes)
        closed.start()
        with pytest.raises(LazylayerError, match=r"did not answer within 0\.5 s"):
            home.get()
        closed.join(60)
        assert not closed.is_alive()

    @pytest.mark.parametrize("stream", [1, 2])
    def test_output_is_bounded(self, home: DockerHome, stream: int) -> None:
        home.add_helper("mine", f"exec yes >&{stream}")
        home.write(credsStore="mine")
        with pytest.raises(LazylayerError, match="printed more than"):
            home.get()

    def test_child_in_the_background_is_not_waited_for(self, home: DockerHome, tmp_path: Path) -> None:
        fifo = tmp_path / "end"
        os.mkfifo(fifo)
        home.add_helper("mine", f"{ANSWER}\nread line <{fifo} &")
        home.write(credsStore="mine")
        found = home.get()
        fifo.write_text("end\n")
        assert found is not None

    def test_large_question_to_a_deaf_helper(self, home: DockerHome) -> None:
        home.add_helper("mine", """exec <&-; echo '{"Username":"ann","Secret":"x"}'""")
        home.write(credsStore="mine")
        assert all(home.get() is not None for _ in range(5))

    def test_answer_of_a_failing_helper_is_not_shown(self, home: DockerHome) -> None:
        home.add_helper("mine", f"""echo '{{"Username":"ann","Secret":"{SECRET}"}}'; exit 1""")
        home.write(credsStore="mine")
        with pytest.raises(LazylayerError) as failed:
            home.get()
        assert SECRET not in str(failed.value)

    def test_many_threads(self, home: DockerHome) -> None:
        home.add_helper("mine", ANSWER)
        home.write(credsStore="mine")
        found: list[str] = []

        def ask(host: str) -> None:
            answer = home.get(host)
            assert answer is not None
            found.append(answer.password)

        threads = [threading.Thread(target=ask, args=(f"host-{number}.example.com",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [f"for host-{number}.example.com" for number in range(8)]
