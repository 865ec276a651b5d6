from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from loguru import logger

from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Reference
from lazylayer.errors import ConfigurationError, LazylayerError, SkipPlugin
from lazylayer_keychain_kube import KubeKeychain, Options
from lazylayer_keychain_kube.pacing import Pacing
from lazylayer_testing.configuring import configured
from lazylayer_testing.servers.process import wait_until

from .kube_api import LEGACY_CONFIG, KubeApi

SECRET = "hunter2"


def write_kubeconfig(path: Path, server: str, user: dict[str, Any] | None = None, **cluster: Any) -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "current-context": "x",
    }
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump(content))
    new.rename(path)


class Node:
    """A keychain with its kubeconfig, and an API for it."""

    def __init__(self, api: KubeApi, directory: Path, watch_seconds: float = 300.0) -> None:
        self.api = api
        self.kubeconfig = directory / "kubeconfig"
        self.keychain = KubeKeychain(Pacing(first_pause=0.05, longest_pause=0.1, watch_seconds=watch_seconds))
        write_kubeconfig(self.kubeconfig, api.url)
        self.configure()

    def configure(self, **options: Any) -> None:
        table = {"kubeconfig": str(self.kubeconfig), "timeout": 30.0, **options}
        configured(self.keychain, "keychain_kube", table)

    def get(self, host: str = "registry.example.com", repository: str = "team/app") -> Credentials | None:
        return self.keychain.lazylayer_get_credentials(host, Reference(repository=repository, host=host, tag="1"))

    def user(self, host: str = "registry.example.com", repository: str = "team/app") -> str:
        found = self.get(host, repository)
        return found.username if found is not None else ""

    def wait_for(self, user: str, host: str = "registry.example.com") -> None:
        wait_until(lambda: self.user(host) == user, f"{host} belongs to {user!r}")

    def wait_for_watches(self, count: int = 2) -> None:
        wait_until(lambda: self.api.watching >= count, f"{count} watches")


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as api:
        yield api


@pytest.fixture
def node(request: pytest.FixtureRequest, api: KubeApi, tmp_path: Path) -> Iterator[Node]:
    """A node; a parameter is the time after which its watches end."""
    node = Node(api, tmp_path, *([request.param] if hasattr(request, "param") else []))
    yield node
    node.keychain.lazylayer_close()
    assert not [each for each in threading.enumerate() if each.name.startswith("keychain_kube")]


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("lazylayer_keychain_kube")
    sink = logger.add(lambda line: lines.append(str(line)), level=0, backtrace=True, diagnose=True)
    yield lines
    logger.remove(sink)
    logger.disable("lazylayer_keychain_kube")


class TestSecrets:
    @pytest.mark.parametrize("kind", ["kubernetes.io/dockerconfigjson", LEGACY_CONFIG])
    def test_secret_is_found(self, node: Node, kind: str) -> None:
        node.api.put_login("pull", {"registry.example.com": ("ann", SECRET)}, kind=kind)
        found = node.get()
        assert found is not None
        assert (found.username, found.password) == ("ann", SECRET)
        assert found.source.startswith("secret default/pull")
        assert node.get("other.example.com") is None

    def test_secret_of_another_type_is_not_even_asked_for(self, node: Node) -> None:
        text = json.dumps({"auths": {"registry.example.com": {"username": "ann", "password": SECRET}}})
        node.api.put("opaque", {".dockerconfigjson": text.encode()}, kind="Opaque")
        assert node.get() is None
        asked = {each.parameters["fieldSelector"] for each in node.api.requests}
        assert asked == {"type=kubernetes.io/dockerconfigjson", "type=kubernetes.io/dockercfg"}

    def test_namespaces_and_labels_choose(self, node: Node) -> None:
        for namespace in ("one", "two", "three"):
            login = {f"{namespace}.example.com": (namespace, SECRET)}
            node.api.put_login("pull", login, namespace=namespace, labels={"use": "pull"})
        node.api.put_login("other", {"four.example.com": ("four", SECRET)}, namespace="one", labels={"use": "push"})
        node.configure(namespaces=["one", "two"], label_selector="use=pull")
        assert [node.user(f"{name}.example.com") for name in ("one", "two", "three", "four")] == ["one", "two", "", ""]

    def test_label_that_goes_takes_the_secret_along(self, node: Node) -> None:
        login = {"registry.example.com": ("ann", SECRET)}
        node.configure(label_selector="use=pull")
        node.api.put_login("pull", login, labels={"use": "pull"})
        assert node.user() == "ann"
        node.api.put_login("pull", login, labels={"use": "no"})
        node.wait_for("")
        node.api.put_login("pull", login, labels={"use": "pull"})
        node.wait_for("ann")

    def test_most_specific_key_wins_then_the_first_name(self, node: Node) -> None:
        node.api.put_login("a", {"registry.example.com": ("a", SECRET)})
        node.api.put_login("b", {"registry.example.com/team": ("b", SECRET), "registry.example.com": ("x", SECRET)})
        node.api.put_login("c", {"*.example.com": ("c", SECRET)})
        names = [node.user(repository="team/app"), node.user(repository="other/app"), node.user("third.example.com")]
        assert names == ["b", "a", "c"]

    def test_pattern_stands_for_one_part(self, node: Node) -> None:
        node.api.put_login("pull", {"*.example.com:5000": ("ann", SECRET)})
        hosts = [
            "a.example.com:5000",
            "a.example.com",
            "a.b.example.com:5000",
            "example.com:5000",
            "a.example.org:5000",
        ]
        assert [node.user(host) for host in hosts] == ["ann", "", "", "", ""]

    def test_many_secrets_come_in_pages(self, node: Node) -> None:
        node.api.page_items = 7
        for number in range(50):
            node.api.put_login(f"pull-{number}", {f"host-{number}.example.com": (f"user-{number}", SECRET)})
        assert [node.user(f"host-{number}.example.com") for number in range(50)] == [f"user-{n}" for n in range(50)]

    def test_pages_that_expire_are_asked_for_again(self, node: Node, log: list[str]) -> None:
        node.api.page_items = 2
        for number in range(6):
            node.api.put_login(f"pull-{number}", {f"host-{number}.example.com": (f"user-{number}", SECRET)})
        answer, compacted = node.api.answer, threading.Event()

        def compact_between_pages(request: Any, handler: Any) -> None:
            if "continue" in request.parameters and not compacted.is_set():
                compacted.set()
                node.api.compact()
            answer(request, handler)

        node.api.answer = compact_between_pages  # type: ignore[method-assign]
        assert node.user("host-5.example.com") == "user-5"
        assert node.api.expired_pages >= 1
        assert not [line for line in log if "WARNING" in line]

    @pytest.mark.parametrize(
        "data",
        [
            {},
            {".dockerconfigjson": "no base64!"},
            {".dockerconfigjson": b"{"},
            {".dockerconfigjson": b'{"auths": 5}'},
            {".dockerconfigjson": b'{"auths": {"registry.example.com": {"auth": "hunter2"}}}'},
            {".dockerconfigjson": b'{"auths": {"registry.example.com": {"password": ["hunter2"]}}}'},
        ],
    )
    def test_broken_secret_is_reported_and_left_out(
        self, node: Node, log: list[str], data: dict[str, bytes | str]
    ) -> None:
        node.api.put("broken", data, namespace="team")
        node.api.put_login("good", {"registry.example.com": ("ann", SECRET)})
        assert node.user() == "ann"
        warnings = [line for line in log if "WARNING" in line]
        assert len(warnings) == 1
        assert "pull secret team/broken is left out: " in warnings[0]
        assert SECRET not in "".join(log)
        node.api.put_login("broken", {"registry.example.com": ("aa", SECRET)}, namespace="a")
        node.wait_for("aa")


class TestWatching:
    def test_changes_arrive(self, node: Node) -> None:
        assert node.user() == ""
        node.api.put_login("pull", {"registry.example.com": ("ann", SECRET)})
        node.wait_for("ann")
        node.api.put_login("pull", {"registry.example.com": ("bob", SECRET)})
        node.wait_for("bob")
        node.api.delete("pull")
        node.wait_for("")
        assert node.api.count(watches=False) == 2

    def test_goes_on_after_a_disconnect(self, node: Node) -> None:
        assert node.user() == ""
        for number in range(3):
            node.wait_for_watches()
            node.api.disconnect()
            node.api.put_login("pull", {"registry.example.com": (f"user-{number}", SECRET)})
            node.wait_for(f"user-{number}")
        assert node.api.count(watches=False) == 2

    def test_goes_on_where_a_bookmark_was(self, node: Node) -> None:
        assert node.user() == ""
        node.wait_for_watches()
        node.api.put("unrelated", {}, kind="Opaque")
        version = node.api.send_bookmarks()
        watchers = node.keychain.watchers
        wait_until(lambda: all(each.version == str(version) for each in watchers), "bookmarks")
        node.api.disconnect()
        node.api.put_login("pull", {"registry.example.com": ("ann", SECRET)})
        node.wait_for("ann")
        assert str(version) in {each.parameters.get("resourceVersion") for each in node.api.requests}

    @pytest.mark.parametrize("gone_as", ["event", "status"])
    def test_lists_again_after_410(self, node: Node, gone_as: Any) -> None:
        node.api.gone_as = gone_as
        node.api.put_login("old", {"old.example.com": ("old", SECRET)})
        assert node.user("old.example.com") == "old"
        node.wait_for_watches()
        node.api.stop()
        node.api.delete("old")
        node.api.put_login("new", {"registry.example.com": ("ann", SECRET)})
        node.api.compact()
        node.api.start()
        node.wait_for("ann")
        assert node.user("old.example.com") == ""
        assert node.api.count(watches=False) >= 3

    @pytest.mark.parametrize("node", [1.0], indirect=True)
    def test_watch_that_ends_in_time_is_begun_again(self, node: Node) -> None:
        assert node.user() == ""
        wait_until(lambda: node.api.count(watches=True) >= 6, "watches begin again")
        node.api.put_login("pull", {"registry.example.com": ("ann", SECRET)})
        node.wait_for("ann")
        assert node.api.count(watches=False) == 2

    def test_last_known_secrets_are_used_while_the_api_is_away(self, node: Node, log: list[str]) -> None:
        node.api.put_login("pull", {"registry.example.com": ("ann", SECRET)})
        assert node.user() == "ann"
        node.wait_for_watches()
        node.api.stop()
        wait_until(lambda: all(each.error for each in node.keychain.watchers), "the watches notice")
        assert node.user() == "ann"
        node.api.put_login("pull", {"registry.example.com": ("bob", SECRET)})
        node.api.start()
        node.wait_for("bob")
        assert any("the API answers again" in line for line in log)

    def test_same_trouble_is_told_once(self, node: Node, log: list[str]) -> None:
        node.api.refuse_with = 500
        node.configure(timeout=0.5)
        with pytest.raises(LazylayerError):
            node.get()
        wait_until(lambda: len(node.api.requests) > 8, "more attempts")
        assert len([line for line in log if "WARNING" in line]) == 2

    def test_strange_events_do_not_end_it(self, node: Node) -> None:
        assert node.user() == ""
        node.wait_for_watches()
        answer, strange = (
            node.api.answer,
            iter([b'{"x":' + b"[" * 100_000, b"{", b"[]", b'{"type": "STRANGE"}', b'{"type": "ADDED", "object": 5}']),
        )

        def answer_strangely(request: Any, handler: Any) -> None:
            line = next(strange, None) if request.is_watch else None
            if line is None:
                answer(request, handler)
                return
            handler.begin_stream()
            handler.wfile.write(b"%x\r\n%s\n\r\n" % (len(line) + 1, line))
            handler.end_stream()

        node.api.answer = answer_strangely  # type: ignore[method-assign]
        node.api.disconnect()
        node.api.put_login("pull", {"registry.example.com": ("ann", SECRET)})
        node.wait_for("ann")

    def test_close_ends_threads_in_the_middle_of_a_watch(self, node: Node) -> None:
        assert node.user() == ""
        node.wait_for_watches()
        watchers = list(node.keychain.watchers)
        node.keychain.lazylayer_close()
        assert not any(each.running for each in watchers)
        node.keychain.lazylayer_close()


class TestStartingEarly:
    def test_before_the_kubeconfig(self, node: Node, log: list[str]) -> None:
        node.api.put_login("pull", {"registry.example.com": ("ann", SECRET)})
        content = node.kubeconfig.read_text()
        node.kubeconfig.unlink()
        node.configure(timeout=0.2)
        with pytest.raises(
            LazylayerError, match=r"keychain_kube.*could not be listed.*cannot read .*kubeconfig: No such"
        ):
            node.get()
        node.kubeconfig.write_text(content)
        node.configure()
        assert node.user() == "ann"

    def test_before_the_api(self, node: Node) -> None:
        node.api.stop()
        node.configure(timeout=0.2)
        with pytest.raises(LazylayerError, match=r"could not be listed within 0\.2 s"):
            node.get()
        wait_until(lambda: all(each.error for each in node.keychain.watchers), "the watches notice")
        with pytest.raises(LazylayerError, match=r"could not be listed within 0\.2 s.*Connection refused"):
            node.get()
        node.api.put_login("pull", {"registry.example.com": ("ann", SECRET)})
        node.api.start()
        node.configure()
        assert node.user() == "ann"

    def test_may_go_on_without(self, node: Node, log: list[str]) -> None:
        node.api.refuse_with = 403
        node.configure(timeout=0.2, unavailable="pass")
        assert node.get() is None
        assert any("going on without them" in line for line in log)

    @pytest.mark.parametrize(
        ("code", "hint"), [(401, "it does not know us"), (403, "allow this user to list and watch secrets")]
    )
    def test_refusal_says_what_to_do(self, node: Node, code: int, hint: str) -> None:
        node.api.refuse_with = code
        node.configure(timeout=0.5)
        with pytest.raises(LazylayerError, match=hint):
            node.get()


class TestOptions:
    def test_is_left_out_unless_configured(self) -> None:
        with pytest.raises(SkipPlugin, match="set kubeconfig or in_cluster"):
            KubeKeychain().lazylayer_configure(Options())

    @pytest.mark.parametrize(
        "options",
        [
            {"kubeconfig": "x", "in_cluster": True},
            {"kubeconfig": "x", "namespaces": ["../x"]},
            {"kubeconfig": "x", "unavailable": "no"},
            {"kubeconfig": "x", "timeout": 0},
            {"kubconfig": "x"},
        ],
    )
    def test_mistakes_are_errors(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match="keychain_kube"):
            configured(KubeKeychain(), "keychain_kube", options)


def test_shown_nowhere(node: Node, log: list[str]) -> None:
    node.api.tokens = {"bearer-token"}
    write_kubeconfig(node.kubeconfig, node.api.url, {"token": "bearer-token"})
    node.api.put("pull", {".dockerconfigjson": _config("registry.example.com", "ann", SECRET)})
    found = node.get()
    assert found is not None
    node.api.tokens = {"other"}
    node.api.disconnect()
    wait_until(lambda: any(each.error for each in node.keychain.watchers), "the refusal is noticed")
    text = f"{found!r} {found} {log} {[each.error for each in node.keychain.watchers]}"
    assert "bearer-token" not in text
    assert SECRET not in text


def _config(host: str, user: str, password: str) -> bytes:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return json.dumps({"auths": {host: {"auth": auth}}}).encode()
