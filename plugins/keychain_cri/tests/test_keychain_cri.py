"""The proxy passes calls on, and remembers and forgets the credentials of pulls; the keychain answers with them."""

from __future__ import annotations

import base64
import os
import stat
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from loguru import logger

from lazylayer.api.credentials import Credentials
from lazylayer.api.settings import Settings
from lazylayer.errors import ConfigurationError, LazylayerError, SkipPlugin
from lazylayer_keychain_cri import CriKeychain, Options
from lazylayer_keychain_cri.proxy import SERVICE
from lazylayer_keychain_cri.remembered import Remembered, RememberedCredentials
from lazylayer_testing.configuring import configured
from lazylayer_testing.servers.process import wait_until

from .image_service import IMAGE_ID, REFERENCE, ImageService, field, image_request, pull_request
from .node import SECRET, Node


class TestPassingOn:
    def test_bytes_go_both_ways_untouched(self, node: Node, backend: ImageService) -> None:
        backend.answers["ListImages"] = lambda request, context: request[::-1]
        assert node.call("ListImages", b"\xff\x00 no message") == b"egassem on \x00\xff"
        assert node.call("ImageStatus", b"x") == b""
        assert [call[:2] for call in backend.calls] == [("ListImages", b"\xff\x00 no message"), ("ImageStatus", b"x")]

    def test_method_of_a_later_version(self, node: Node, backend: ImageService) -> None:
        backend.answers["MethodOfTheFuture"] = lambda request, context: b"future"
        assert node.call("MethodOfTheFuture") == b"future"

    def test_large_messages(self, node: Node, backend: ImageService) -> None:
        backend.answers["ListImages"] = lambda request, context: bytes(3 * 1024 * 1024)
        assert len(node.call("ListImages", bytes(3 * 1024 * 1024))) == 3 * 1024 * 1024

    def test_metadata(self, node: Node, backend: ImageService) -> None:
        node.call("ListImages", traceparent="00-1-2-01")
        assert backend.calls[0][2]["traceparent"] == "00-1-2-01"

    def test_error_with_its_details(self, node: Node, backend: ImageService) -> None:
        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_trailing_metadata([("reason-bin", b"\x00\x01")])
            context.abort(grpc.StatusCode.NOT_FOUND, "no such image")
            raise AssertionError

        backend.answers["ImageStatus"] = refuse
        with pytest.raises(grpc.RpcError) as error:
            node.call("ImageStatus")
        failure: Any = error.value
        assert (failure.code(), failure.details()) == (grpc.StatusCode.NOT_FOUND, "no such image")
        assert ("reason-bin", b"\x00\x01") in failure.trailing_metadata()

    def test_deadline_and_cancellation_reach_the_service(self, node: Node, backend: ImageService) -> None:
        ended, begun = threading.Event(), threading.Event()

        def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
            remaining = context.time_remaining()
            assert remaining is not None
            assert remaining < 60
            context.add_callback(ended.set)
            begun.set()
            ended.wait(60)
            return b""

        backend.answers["ImageFsInfo"] = wait
        call = node.channel.unary_unary(f"{SERVICE}ImageFsInfo").future(b"", timeout=50, wait_for_ready=True)
        assert begun.wait(60)
        call.cancel()
        assert ended.wait(60)

    def test_slow_pulls_do_not_block_other_calls(self, node: Node, backend: ImageService) -> None:
        begun, released = threading.Semaphore(0), threading.Event()

        def pull(request: bytes, context: grpc.ServicerContext) -> bytes:
            begun.release()
            released.wait(120)
            return field(1, IMAGE_ID)

        backend.answers["PullImage"] = pull
        remote = node.channel.unary_unary(f"{SERVICE}PullImage")
        requests = [pull_request(f"registry.example.com/team/app:{number}", password=SECRET) for number in range(80)]
        calls = [remote.future(each, timeout=120, wait_for_ready=True) for each in requests]
        try:
            assert all(begun.acquire(timeout=60) for _ in calls), "80 pulls are passed on at the same time"
            assert node.call("ListImages") == b""
        finally:
            released.set()
        assert {call.result() for call in calls} == {field(1, IMAGE_ID)}

    def test_other_services_are_not_served(self, node: Node) -> None:
        with pytest.raises(grpc.RpcError) as error:
            node.channel.unary_unary("/runtime.v1.RuntimeService/Version")(b"", timeout=60, wait_for_ready=True)
        failure: Any = error.value
        assert failure.code() == grpc.StatusCode.UNIMPLEMENTED

    def test_service_that_comes_late(self, bare_node: Node) -> None:
        proxy = bare_node.start_proxy()
        try:
            with pytest.raises(grpc.RpcError) as error:
                bare_node.call("ListImages")
            failure: Any = error.value
            assert failure.code() == grpc.StatusCode.UNAVAILABLE
            service = ImageService(bare_node.backend_socket)
            try:
                wait_until(bare_node.answers, "the service is reached")
            finally:
                service.close()
        finally:
            proxy.close(0)


class TestRemembering:
    def test_pull_with_a_password(self, node: Node, backend: ImageService) -> None:
        request = pull_request(username="ann", password=SECRET)
        assert node.call("PullImage", request) == field(1, IMAGE_ID)
        assert backend.calls[0][:2] == ("PullImage", request)
        found = node.get()
        assert found is not None
        assert (found.username, found.password) == ("ann", SECRET)
        assert found.source == "a pull through the CRI"

    def test_known_while_the_pull_is_under_way(self, node: Node, backend: ImageService) -> None:
        seen: list[str] = []

        def pull(request: bytes, context: grpc.ServicerContext) -> bytes:
            seen.append(node.password())
            return field(1, IMAGE_ID)

        backend.answers["PullImage"] = pull
        node.call("PullImage", pull_request(username="ann", password=SECRET))
        assert seen == [SECRET]

    @pytest.mark.parametrize(
        ("auth", "expected"),
        [
            ({"auth": base64.b64encode(b"ann:x:y").decode()}, Credentials("ann", "x:y")),
            ({"identity_token": "refresh"}, Credentials(identity_token="refresh")),
            ({"registry_token": "bearer"}, Credentials(registry_token="bearer")),
        ],
    )
    def test_other_forms(self, node: Node, auth: dict[str, str], expected: Credentials) -> None:
        node.call("PullImage", pull_request(**auth))
        found = node.get()
        assert found is not None
        secrets = ("username", "password", "identity_token", "registry_token")
        assert [getattr(found, name) for name in secrets] == [getattr(expected, name) for name in secrets]

    @pytest.mark.parametrize("pulled", ["debian", "docker.io/library/debian:latest", "index.docker.io/library/debian"])
    def test_spellings_of_a_reference(self, node: Node, pulled: str) -> None:
        server = "https://index.docker.io/v1/"
        node.call("PullImage", pull_request(pulled, username="ann", password=SECRET, server_address=server))
        assert node.password("docker.io/library/debian:latest") == SECRET
        assert node.password("docker.io/library/debian:latest", "registry-1.docker.io") == SECRET
        assert node.password("docker.io/library/debian:12") == ""

    def test_tag_beside_a_digest_does_not_count(self, node: Node) -> None:
        digest = "sha256:" + "b" * 64
        node.call("PullImage", pull_request(f"{REFERENCE}@{digest}", username="ann", password=SECRET))
        assert node.password(f"registry.example.com/team/app@{digest}") == SECRET
        assert node.password(f"{REFERENCE}@{digest}") == SECRET
        assert node.password() == ""
        node.call("RemoveImage", image_request(f"registry.example.com/team/app@{digest}"))
        assert node.password(f"{REFERENCE}@{digest}") == ""

    def test_only_for_its_host(self, node: Node) -> None:
        node.call("PullImage", pull_request(username="ann", password=SECRET))
        assert node.password(host="mirror.example.com") == ""
        node.call(
            "PullImage", pull_request(username="ann", password=SECRET, server_address="https://other.example.com")
        )
        assert node.password() == ""
        assert node.password(host="other.example.com") == SECRET

    def test_pull_without_credentials_is_not_remembered(self, node: Node) -> None:
        node.call("PullImage", pull_request())
        node.call("PullImage", pull_request(username="ann"))
        assert node.get() is None
        assert not node.store_directory.exists()

    @pytest.mark.parametrize("before", ["", "old"])
    def test_failed_pull_leaves_what_was_known(self, node: Node, backend: ImageService, before: str) -> None:
        if before:
            node.call("PullImage", pull_request(username="ann", password=before))

        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.UNKNOWN, "401 Unauthorized")
            raise AssertionError

        backend.answers["PullImage"] = refuse
        with pytest.raises(grpc.RpcError):
            node.call("PullImage", pull_request(username="ann", password="wrong"))
        assert node.password() == before

    def test_cancelled_pull_leaves_what_was_known(self, node: Node, backend: ImageService) -> None:
        node.call("PullImage", pull_request(username="ann", password="old"))
        begun, ended = threading.Event(), threading.Event()

        def pull(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.add_callback(ended.set)
            begun.set()
            ended.wait(60)
            return b""

        backend.answers["PullImage"] = pull
        remote = node.channel.unary_unary(f"{SERVICE}PullImage")
        call = remote.future(pull_request(username="ann", password="new"), timeout=60, wait_for_ready=True)
        assert begun.wait(60)
        assert node.password() == "new"
        call.cancel()
        assert ended.wait(60), "the image service hears of it"
        wait_until(lambda: node.password() == "old", "the old password is back")

    @pytest.mark.parametrize(
        "request_bytes",
        [pull_request("no reference!", username="a", password="b"), pull_request(auth="%"), b"\xff", b"\x0a\x05x"],
    )
    def test_strange_requests_are_passed_on_all_the_same(
        self, node: Node, backend: ImageService, request_bytes: bytes
    ) -> None:
        assert node.call("PullImage", request_bytes) == field(1, IMAGE_ID)
        assert backend.calls[0][1] == request_bytes

    def test_disk_that_is_full_does_not_fail_the_pull(self, node: Node) -> None:
        node.store_directory.parent.mkdir()
        node.store_directory.write_text("in the way")
        assert node.call("PullImage", pull_request(username="ann", password=SECRET)) == field(1, IMAGE_ID)


class TestForgetting:
    @pytest.mark.parametrize("name", [REFERENCE, IMAGE_ID])
    def test_removed_image(self, node: Node, name: str) -> None:
        node.call("PullImage", pull_request(username="ann", password=SECRET))
        other = "registry.example.com/other:1"
        node.call("RemoveImage", image_request("registry.example.com/unrelated:1"))
        assert node.password() == SECRET
        node.call("RemoveImage", image_request(name))
        assert node.password() == ""
        assert node.password(other) == ""
        assert list(node.store_directory.iterdir()) == []

    def test_removal_that_fails_forgets_nothing(self, node: Node, backend: ImageService) -> None:
        node.call("PullImage", pull_request(username="ann", password=SECRET))

        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "in use")
            raise AssertionError

        backend.answers["RemoveImage"] = refuse
        with pytest.raises(grpc.RpcError):
            node.call("RemoveImage", image_request(REFERENCE))
        assert node.password() == SECRET

    def test_oldest_are_dropped(self, tmp_path: Path) -> None:
        store = RememberedCredentials(tmp_path / "store", max_entries=3)
        for number in range(5):
            store.put(Remembered(f"r/{number}", password="x"))
            path = max((tmp_path / "store").iterdir(), key=lambda path: path.stat().st_mtime_ns)
            os.utime(path, ns=(number, number))
        assert [bool(store.get(f"r/{number}")) for number in range(5)] == [False, False, True, True, True]


class TestFiles:
    def test_only_the_owner_may_read(self, node: Node) -> None:
        old = os.umask(0)
        try:
            node.call("PullImage", pull_request(username="ann", password=SECRET))
        finally:
            os.umask(old)
        (path,) = node.store_directory.iterdir()
        assert stat.S_IMODE(node.store_directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_broken_file_is_an_error_with_a_way_out(self, node: Node) -> None:
        node.call("PullImage", pull_request(username="ann", password=SECRET))
        (path,) = node.store_directory.iterdir()
        path.write_text(path.read_text()[:-3])
        with pytest.raises(LazylayerError, match=r"keychain_cri.*\.json does not hold.*remove it") as broken:
            node.get()
        assert SECRET not in str(broken.value)
        node.call("PullImage", pull_request(username="ann", password=SECRET))
        assert node.password() == SECRET

    def test_nothing_secret_is_logged(self, node: Node) -> None:
        lines: list[str] = []
        logger.enable("lazylayer_keychain_cri")
        sink = logger.add(lambda line: lines.append(str(line)), level=0, backtrace=True, diagnose=True)
        try:
            node.call("PullImage", pull_request(username="ann", password=SECRET))
            node.call("PullImage", pull_request(auth=base64.b64encode(SECRET.encode()).decode()))
            node.call("RemoveImage", image_request(REFERENCE))
        finally:
            logger.remove(sink)
            logger.disable("lazylayer_keychain_cri")
        assert any("its credentials are remembered" in line for line in lines)
        encoded = base64.b64encode(SECRET.encode()).decode()
        assert not [line for line in lines if SECRET in line or encoded in line]


class TestOptions:
    def test_is_left_out_unless_configured(self) -> None:
        with pytest.raises(SkipPlugin, match="set listen to use it"):
            CriKeychain().lazylayer_configure(Settings(), Options())

    @pytest.mark.parametrize("options", [{"listen": 5}, {"listen": "x", "max_entries": 0}, {"socket": "x"}])
    def test_mistakes_are_errors(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match="keychain_cri"):
            configured(CriKeychain(), "keychain_cri", options)
