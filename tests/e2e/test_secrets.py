"""No credential that a run uses is found in what the run leaves or shows, at the most verbose level.

Every keychain takes part, each with a registry of its own: Docker's file with a password, an identity
token and a helper, Kubernetes' pull secrets, the CRI's remembered pulls; registries hand out bearer
tokens and redirect to signed addresses. Some logins are wrong and some files broken on purpose.
"""

from __future__ import annotations

import base64
import json
import resource
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from plugins.keychain_cri.tests.image_service import ImageService, pull_request
from plugins.keychain_kube.tests.kube_api import KubeApi

from e2e.command_line import CommandLine
from images.lazy_layer import build_estargz
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_keychain_cri.remembered import Remembered, RememberedCredentials
from lazylayer_testing.registry import BasicAuthentication, ImageLayer, ScriptedRegistry, TokenAuthentication
from lazylayer_testing.servers.process import ServerProcess

pytestmark = pytest.mark.fuse

NAME = "team/app"
PASSWORDS = {
    who: f"{who}-Pa55w0rd-Tk3x" for who in ("file", "helper", "kube", "cri", "wrong", "mirror", "broken", "kubelet")
}
IDENTITY_TOKEN = "identity-t0ken-9f31"
API_TOKEN = "api-t0ken-77aa"
HEADER = "header-s3cret-41d2"


def encode(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


class World:
    """Registries, keychains, and a command line that uses them."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.said: dict[str, bytes] = {}
        self.processes: dict[str, bytes] = {}
        self.registries: dict[str, ScriptedRegistry] = {}
        self.storage = stack.enter_context(ScriptedRegistry())
        self.layer = _build_layer(directory)
        for who in ("file", "helper", "identity", "kube", "cri", "wrong", "basic"):
            self.registries[who] = self._start_registry(who, stack)
        self.signer = self.registries["file"].redirect_blobs(self.storage)
        self.api = stack.enter_context(KubeApi())
        self.api.tokens = {API_TOKEN}
        self._write_docker_config()
        self._write_kube_config()
        self.shell = CommandLine(directory)
        self._write_configuration()
        remembered = Remembered(self.reference("cri"), "cri", PASSWORDS["cri"])
        RememberedCredentials(self.shell.root / "keychain_cri").put(remembered)

    def reference(self, who: str) -> str:
        return f"{self.registries[who].host}/{NAME}:1"

    def command(self, *arguments: str | Path, log_format: str) -> list[str]:
        settings = {"log.level": "TRACE", "log.format": log_format}
        config = self.directory / "lazylayer.toml"
        command = self.shell.command(*arguments, settings=settings)
        at = command.index("--set")
        command[at:at] = ["--debug", "--config", str(config)]
        return command

    def run(self, *arguments: str | Path, fails: bool = False, log_format: str = "text") -> str:
        command = self.command(*arguments, log_format=log_format)
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        said = done.stdout + done.stderr
        self.said[f"{' '.join(map(str, arguments))} ({log_format}, {len(self.said)})"] = said
        assert (done.returncode != 0) == fails, said.decode(errors="replace")
        return said.decode(errors="replace")

    def secrets(self) -> dict[str, str]:
        """Everything that must not be found, by what it is."""
        found = {f"password of {who}": password for who, password in PASSWORDS.items()}
        found |= {f"auth of {who}": encode(who, password) for who, password in PASSWORDS.items()}
        found |= {"identity token": IDENTITY_TOKEN, "token for the Kubernetes API": API_TOKEN, "header": HEADER}
        for who, registry in self.registries.items():
            authentication = registry.authentication
            if isinstance(authentication, TokenAuthentication):
                assert authentication.exchanges or who in ("basic",), f"no token of {who} was asked for"
            for number, request in enumerate(registry.requests):
                _, _, value = request.headers.get("authorization", "").partition(" ")
                found[f"authorization {number} of {who}"] = value
        for number, request in enumerate(self.storage.requests):
            for name, value in request.query.items():
                if name != "ns" and len(value) > 12:
                    found[f"{name} of signed address {number}"] = value
        return {what: secret for what, secret in found.items() if secret}

    def _start_registry(self, who: str, stack: ExitStack) -> ScriptedRegistry:
        users = {who: PASSWORDS.get(who, "")} if who != "wrong" else {"wrong": "something else"}
        if who == "basic":
            authentication: BasicAuthentication | TokenAuthentication = BasicAuthentication({"file": PASSWORDS["file"]})
        else:
            tokens = {IDENTITY_TOKEN: "ann"} if who == "identity" else None
            authentication = TokenAuthentication(users, identity_tokens=tokens, anonymous=False)
        registry = stack.enter_context(ScriptedRegistry(authentication=authentication))
        registry.content.add_image(NAME, "1", [self.layer])
        return registry

    def _write_docker_config(self) -> None:
        hosts = {who: registry.host for who, registry in self.registries.items()}
        helper = self.directory / "docker-credential-tests"
        answer = json.dumps({"Username": "helper", "Secret": PASSWORDS["helper"]})
        helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
        helper.chmod(0o755)
        auths = {
            hosts["file"]: {"auth": encode("file", PASSWORDS["file"])},
            hosts["basic"]: {"username": "file", "password": PASSWORDS["file"]},
            hosts["identity"]: {"identitytoken": IDENTITY_TOKEN},
            hosts["wrong"]: {"auth": encode("wrong", PASSWORDS["wrong"])},
            "broken.example.com": {"auth": f"!{encode('broken', PASSWORDS['broken'])}"},
        }
        content = {"auths": auths, "credHelpers": {hosts["helper"]: "tests"}}
        self.docker_config = self.directory / "docker.json"
        self.docker_config.write_text(json.dumps(content))

    def _write_kube_config(self) -> None:
        self.api.put_login("pull", {self.registries["kube"].host: ("kube", PASSWORDS["kube"])})
        self.api.put("broken", {".dockerconfigjson": f'{{"auths": "{PASSWORDS["broken"]}"'.encode()})
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": self.api.url}}],
            "users": [{"name": "u", "user": {"token": API_TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (self.directory / "kubeconfig").write_text(json.dumps(kubeconfig))

    def _write_configuration(self) -> None:
        hosts = [registry.host for registry in self.registries.values()]
        (self.directory / "lazylayer.toml").write_text(
            f"""
            [resolve]
            plain_http = {json.dumps(hosts)}
            [[resolver.hosts]]
            host = "{self.registries["kube"].host}"
            mirrors = [{{ url = "{self.storage.url}", header = {{ "X-Mirror" = "{HEADER}" }} }}]
            [plugin.keychain_docker]
            config = "{self.docker_config}"
            [plugin.keychain_kube]
            kubeconfig = "{self.directory / "kubeconfig"}"
            [plugin.keychain_cri]
            listen = "{self.directory / "cri.sock"}"
            backend = "{self.directory / "backend.sock"}"
            """
        )


def _build_layer(directory: Path) -> ImageLayer:
    files = {name: name.encode() * 40_000 for name in ("first", "second")}
    with Program.load(overrides=[f"root={directory}/build", f"run={directory}/build"]) as program:
        return build_estargz(program.hooks, files, BuildOptions(chunk_size=50_000))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world after everything in it was used."""
    directory = tmp_path_factory.mktemp("secrets")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PATH", str(directory), prepend=":")
        world = World(directory, stack)
        use_everything(world)
        yield world


def use_everything(world: World) -> None:
    for number, who in enumerate(("file", "helper", "identity", "kube", "cri", "basic")):
        world.run("login-check", world.reference(who), log_format=("text", "json")[number % 2])
        world.run("login-check", "--json", world.reference(who))
        world.run("cat", world.reference(who), "/first", log_format=("json", "text")[number % 2])
    for log_format in ("text", "json"):
        world.run("ls", world.reference("wrong"), fails=True, log_format=log_format)
        world.run("login-check", f"broken.example.com/{NAME}:1", fails=True, log_format=log_format)
        world.run("login-check", "--json", world.reference("wrong"), fails=True, log_format=log_format)
    _pull_by_cri(world)
    for who in ("file", "kube"):
        _mount_and_read(world, who)
    for command in (["config", "show"], ["config", "show", "--json"], ["config", "check"], ["plugins", "list"]):
        world.run(*command)
    _take_files(world, "at the end")


def _pull_by_cri(world: World) -> None:
    """Has kubelet's pulls go by the proxy: good ones, one that fails, and one that cannot be read."""
    backend = ImageService(world.directory / "backend.sock")
    log = world.directory / "cri-proxy.log"
    socket = world.directory / "cri.sock"
    proxy = ServerProcess(world.command("cri-proxy", log_format="json"), log=log, ready=socket.exists)
    proxy.start()
    try:
        _look_at_process(world, proxy.pid)
        password = PASSWORDS["kubelet"]
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            pull = channel.unary_unary("/runtime.v1.ImageService/PullImage")
            for login in (
                {"username": "kubelet", "password": password},
                {"auth": encode("kubelet", password)},
                {"auth": f"!{encode('broken', PASSWORDS['broken'])}"},
                {"identity_token": IDENTITY_TOKEN},
            ):
                pull(pull_request(**login), timeout=100, wait_for_ready=True)
            backend.answers["PullImage"] = lambda request, context: context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "the registry refused"
            )
            with pytest.raises(grpc.RpcError, match="refused"):
                pull(pull_request(username="kubelet", password=password), timeout=100)
    finally:
        proxy.stop()
        backend.close()
    assert "its credentials are remembered" in log.read_text()
    world.said["log of the CRI proxy"] = log.read_bytes()


def _mount_and_read(world: World, who: str) -> None:
    """Mounts, and reads on after tokens and signed addresses have become invalid."""
    mountpoint = world.directory / f"mount of {who}"
    mountpoint.mkdir()
    # So that it is not the machine that forbids core files.
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        world.run("mount", world.reference(who), mountpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    try:
        (mountpoint / "first").read_bytes()
        authentication = world.registries[who].authentication
        assert isinstance(authentication, TokenAuthentication)
        authentication.revoke()
        world.signer.expire()
        (mountpoint / "second").read_bytes()
        for state in (mountpoint / ".stargz-snapshotter").glob("*"):
            world.said[f"{state.name} in the mount of {who}"] = state.read_bytes()
        world.run("status", "--json")
        world.run("status")
        world.run("metrics")
        _look_at_processes(world)
        _take_files(world, f"during the mount of {who}")
    finally:
        world.run("umount", mountpoint)


def _look_at_processes(world: World) -> None:
    mounts = json.loads(world.shell.run("status", "--json").stdout)["mounts"]
    assert mounts
    for pid in {each["pid"] for each in mounts}:
        _look_at_process(world, pid)


def _look_at_process(world: World, pid: int) -> None:
    for name in ("cmdline", "comm", "limits"):
        world.processes[f"{pid} {name}"] = Path(f"/proc/{pid}/{name}").read_bytes()


def _take_files(world: World, when: str) -> None:
    """What is below the root and run directories, but for the one place where credentials are kept."""
    for base in (world.shell.root, world.shell.run_directory):
        for path in base.rglob("*"):
            if path.is_file() and path.parent.name != "keychain_cri":
                world.said[f"{path} {when}"] = path.read_bytes()


def test_no_secret_is_left_or_shown(world: World) -> None:
    secrets = world.secrets()
    assert len(secrets) > 30
    leaks = [
        f"{what} in {where}"
        for where, said in {**world.said, **world.processes}.items()
        for what, secret in secrets.items()
        if secret.encode() in said
    ]
    assert leaks == []


def test_credentials_reach_nobody_else(world: World) -> None:
    """Authorization is sent to the registry it is for, and to no storage, mirror or other registry."""
    assert world.storage.requests
    for request in world.storage.requests:
        assert "authorization" not in request.headers
    for who, registry in world.registries.items():
        others = {other: password for other, password in PASSWORDS.items() if other not in (who, "file")}
        for request in registry.requests:
            sent = f"{request.headers} {request.query} {request.body.decode(errors='replace')}"
            assert HEADER not in sent
            assert not [each for each in others if others[each] in sent or encode(each, others[each]) in sent]


def test_processes_with_credentials_leave_no_core_files(world: World) -> None:
    limits = [said.decode() for where, said in world.processes.items() if where.endswith("limits")]
    assert limits
    for text in limits:
        (line,) = [each for each in text.splitlines() if each.startswith("Max core file size")]
        assert line.split()[4] == "0"
