"""Debian's docker-registry as operators run it: TLS, passwords, tokens, mirrors that come and go."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from e2e.command_line import CommandLine
from images.lazy_layer import tar_of
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor, MediaType, Platform, Reference, ResolvedImage, parse_reference, sha256_digest
from lazylayer.api.sources import BlobSource
from lazylayer.errors import AuthenticationError, BuildError, UnavailableError
from lazylayer.program import Program
from lazylayer_building import ImageStore
from lazylayer_building.stores import open_store
from lazylayer_testing.registry import ScriptedRegistry
from lazylayer_testing.resolver.images import LayoutImage, write_image
from lazylayer_testing.servers.certificates import Authority
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import wait_until
from servers.nginx import NginxSigner, StorageFront
from servers.token_server import TokenServer

pytestmark = pytest.mark.servers

PASSWORD = "registry-Pa55word"
HTPASSWD = "robot:$2b$04$GDBnS8Fxo7SPBsLehNQu/eclDrUj002Gez3ZuFl8sHza0eIRYt/cu\n"
REPOSITORY = "tests/eight-layers"
MACHINE = Platform.of_this_machine()


class Node:
    """What an operator configures on one machine: hosts.toml files, logins, and our own settings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts = directory / "certs.d"
        self.file = directory / "lazylayer.toml"
        self.docker = directory / "docker"
        for each in (self.hosts, self.docker):
            each.mkdir(parents=True)
        self.configure()

    def configure(self, text: str = "") -> None:
        options = "[plugin.resolver_registry]\nattempts = 3\nmirror_attempts = 1\nmirror_rest = 0\n"
        self.file.write_text(f'root = "{self.directory}/root"\nrun = "{self.directory}/run"\n{text}\n{options}')

    def write_hosts(self, host: str, text: str) -> None:
        directory = self.hosts / host
        directory.mkdir(exist_ok=True)
        (directory / "hosts.toml").write_text(text)
        self.configure(f'[resolver]\nconfig_path = ["{self.hosts}"]')

    def login(self, host: str, password: str = PASSWORD) -> None:
        auth = base64.b64encode(f"robot:{password}".encode()).decode()
        (self.docker / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))

    def program(self) -> Program:
        return Program.load(self.file)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node(tmp_path / "node")
    monkeypatch.setenv("DOCKER_CONFIG", str(node.docker))
    return node


@pytest.fixture(scope="module")
def image() -> LayoutImage:
    return LayoutImage.random(8, *[50_000] * 8)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def resolve(program: Program, reference: str) -> ResolvedImage:
    return program.hooks.resolve_image(parse_reference(reference), MACHINE)


def open_layer(program: Program, reference: str, descriptor: Descriptor) -> BlobSource:
    return program.hooks.resolve_blob(parse_reference(reference), descriptor)


def read(source: BlobSource, start: int, end: int) -> bytes:
    return b"".join(piece for _, piece in source.fetch([ByteRange(start, end)]))


def push(program: Program, reference: Reference, image: LayoutImage) -> None:
    store: ImageStore = open_store(program.hooks, reference)
    config = Descriptor(MediaType.OCI_CONFIG, sha256_digest(image.config), len(image.config))
    for descriptor, data in [*zip(image.descriptors, image.layers, strict=True), (config, image.config)]:
        store.put_blob(descriptor, io.BytesIO(data))
        assert store.has_blob(descriptor.digest, descriptor.size)
    store.put_manifest(reference, MediaType.OCI_MANIFEST, image.manifest)


# --- without anything ----------------------------------------------------------------------------


def test_an_image_is_pushed_and_read(docker_registry: DockerRegistry, node: Node) -> None:
    large = LayoutImage.random(3, 40_000_000, 10)
    reference = f"{docker_registry.host}/tests/pushed:1"
    with node.program() as program:
        push(program, parse_reference(reference), large)
        found = resolve(program, reference)
        assert found.manifest_bytes == large.manifest
        layer = large.layers[0]
        source = open_layer(program, reference, large.descriptors[0])
        assert read(source, 39_000_000, 40_000_000) == layer[39_000_000:]
        ranges = [ByteRange(0, 10), ByteRange(1_000_000, 1_000_500), ByteRange(39_999_999, 40_000_000)]
        pieces = b"".join(piece for _, piece in source.fetch(ranges))
        assert pieces == b"".join(layer[start:end] for start, end in ranges)
        elsewhere = open_store(program.hooks, parse_reference(f"{docker_registry.host}/tests/taken-over:1"))
        assert not elsewhere.has_blob(large.descriptors[0].digest, large.descriptors[0].size)
        assert elsewhere.take_blob(large.descriptors[0], parse_reference(reference))
        assert elsewhere.has_blob(large.descriptors[0].digest, large.descriptors[0].size)
        store = open_store(program.hooks, parse_reference(reference))
        with pytest.raises(BuildError, match="expected 10 bytes, got"):
            store.put_blob(large.descriptors[1], io.BytesIO(b"not this.."))


# --- TLS and passwords ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(
    authority: Authority, image: LayoutImage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerRegistry]:
    """TLS with an authority of its own, and a password."""
    directory = tmp_path_factory.mktemp("secured")
    (directory / "htpasswd").write_text(HTPASSWD)
    authentication = f"auth:\n  htpasswd:\n    realm: tests\n    path: {directory}/htpasswd"
    with DockerRegistry(directory, certificate=authority.issue("registry"), authentication=authentication) as registry:
        node = Node(directory / "node")
        node.write_hosts(registry.host, f'server = "{registry.url}"\nca = "{authority.certificate}"')
        node.login(registry.host)
        with pytest.MonkeyPatch.context() as patch, node.program() as program:
            patch.setenv("DOCKER_CONFIG", str(node.docker))
            push(program, parse_reference(f"{registry.host}/{REPOSITORY}:1"), image)
        yield registry


def test_a_private_authority_and_a_password(
    secured: DockerRegistry, node: Node, authority: Authority, image: LayoutImage
) -> None:
    node.write_hosts(secured.host, f'server = "{secured.url}"\nca = "{authority.certificate}"')
    node.login(secured.host)
    reference = f"{secured.host}/{REPOSITORY}:1"
    with node.program() as program:
        for descriptor, layer in zip(resolve(program, reference).manifest.layers, image.layers, strict=True):
            assert read(open_layer(program, reference, descriptor), 0, len(layer)) == layer


def test_our_own_table_does_the_same(
    secured: DockerRegistry, node: Node, authority: Authority, image: LayoutImage
) -> None:
    node.configure(
        f'[[resolver.hosts]]\nhost = "{secured.host}"\nserver = "{secured.url}"\nca = "{authority.certificate}"'
    )
    node.login(secured.host)
    with node.program() as program:
        assert resolve(program, f"{secured.host}/{REPOSITORY}:1").digest == image.digest


def test_a_certificate_that_nobody_trusts_is_refused(secured: DockerRegistry, node: Node) -> None:
    node.write_hosts(secured.host, f'server = "{secured.url}"')
    node.login(secured.host)
    with node.program() as program, pytest.raises(UnavailableError, match=r"not trusted.*`ca`") as caught:
        resolve(program, f"{secured.host}/{REPOSITORY}:1")
    assert PASSWORD not in str(caught.value)


def test_certificates_are_replaced_under_a_mounted_image(
    secured: DockerRegistry, node: Node, authority: Authority, image: LayoutImage, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Authority(tmp_path / "outdated").certificate.read_bytes())
    node.write_hosts(secured.host, f'server = "{secured.url}"\nca = "{trusted}"')
    node.login(secured.host)
    reference = parse_reference(f"{secured.host}/{REPOSITORY}:1")
    layer = image.descriptors[0]
    with node.program() as program:
        source = program.hooks.resolve_blob(reference, layer)
        with pytest.raises(UnavailableError, match="not trusted"):
            source.check()
        trusted.write_bytes(authority.certificate.read_bytes())
        source.check()
        for half_written in (b"", b"-----BEGIN CERTIFICATE-----\n"):
            trusted.write_bytes(half_written)
            source.check()
        trusted.unlink()
        source.check()
        source.close()


def test_verification_may_be_switched_off(secured: DockerRegistry, node: Node, image: LayoutImage) -> None:
    node.write_hosts(secured.host, f'server = "{secured.url}"\nskip_verify = true')
    node.login(secured.host)
    with node.program() as program:
        assert resolve(program, f"{secured.host}/{REPOSITORY}:1").digest == image.digest


def test_a_wrong_password_is_refused(secured: DockerRegistry, node: Node, authority: Authority) -> None:
    node.write_hosts(secured.host, f'server = "{secured.url}"\nca = "{authority.certificate}"')
    node.login(secured.host, "wrong-Pa55word")
    with node.program() as program, pytest.raises(AuthenticationError, match=secured.host) as caught:
        resolve(program, f"{secured.host}/{REPOSITORY}:1")
    assert "wrong-Pa55word" not in str(caught.value)


def test_login_check_shows_the_way(secured: DockerRegistry, node: Node, authority: Authority, tmp_path: Path) -> None:
    node.write_hosts(secured.host, f'server = "{secured.url}"\nca = "{authority.certificate}"')
    node.login(secured.host)
    shell = CommandLine(tmp_path / "shell", **{"resolver.config_path": json.dumps([str(node.hosts)])})
    done = shell.run("login-check", f"{secured.host}/{REPOSITORY}:1")
    said = done.stdout.decode()
    for part in (f"registry {secured.url}/v2", "answered 401", str(node.docker), "8 layers", "can be read from"):
        assert part in said
    assert PASSWORD not in said + done.stderr.decode()
    node.login(secured.host, "wrong-Pa55word")
    failed = shell.run("login-check", f"{secured.host}/{REPOSITORY}:1", check=False)
    assert failed.returncode == 1
    assert b"lazylayer: error: " in failed.stderr


def test_login_check_tells_programs_too(
    secured: DockerRegistry, node: Node, authority: Authority, tmp_path: Path
) -> None:
    node.write_hosts(
        secured.host,
        f'server = "{secured.url}"\nca = "{authority.certificate}"\n[host."http://127.0.0.1:1"]\ndial_timeout = "2s"',
    )
    node.login(secured.host)
    shell = CommandLine(tmp_path / "shell", **{"resolver.config_path": json.dumps([str(node.hosts)])})
    reference = f"{secured.host}/{REPOSITORY}:1"
    done = shell.run("login-check", "--json", reference)
    said = json.loads(done.stdout)
    assert (said["reference"], said["ok"], said["layers"], said["error"]) == (reference, True, 8, None)
    assert said["source"].startswith(secured.host)
    steps = [step["values"] for step in said["steps"]]
    assert any("mirror http://127.0.0.1:1/v2" in step.get("endpoints", "") for step in steps)
    assert any("mirror http://127.0.0.1:1/v2" in step.get("place", "") for step in steps), "it is passed over"
    assert 401 in [step.get("status") for step in steps]
    assert any(str(node.docker) in step.get("credentials", "") for step in steps)
    node.login(secured.host, "wrong-Pa55word")
    failed = shell.run("login-check", "--json", reference, check=False)
    told = json.loads(failed.stdout)
    assert (failed.returncode, told["ok"], told["image"]) == (1, False, None)
    assert secured.host in told["error"]
    for output in (done.stdout, done.stderr, failed.stdout, failed.stderr):
        assert PASSWORD.encode() not in output
        assert b"wrong-Pa55word" not in output


def test_client_certificates(authority: Authority, node: Node, image: LayoutImage, tmp_path: Path) -> None:
    clients = Authority(tmp_path / "clients")
    certificate, key = clients.issue("node")
    tls = authority.issue("registry")
    with DockerRegistry(tmp_path / "registry", certificate=tls, client_authority=clients.certificate) as registry:
        server = f'server = "{registry.url}"\nca = "{authority.certificate}"\n'
        reference = f"{registry.host}/{REPOSITORY}:1"
        node.write_hosts(registry.host, f'{server}client = [["{certificate}", "{key}"]]')
        with node.program() as program:
            push(program, parse_reference(reference), image)
            assert resolve(program, reference).digest == image.digest
        node.write_hosts(registry.host, server)
        with node.program() as program, pytest.raises(UnavailableError, match="certificate"):
            resolve(program, reference)


# --- tokens --------------------------------------------------------------------------------------


def test_one_exchange_serves_eight_layers_and_outlives_a_change_of_keys(
    node: Node, image: LayoutImage, tmp_path: Path
) -> None:
    with (
        TokenServer(tmp_path / "tokens", {"robot": PASSWORD}) as tokens,
        DockerRegistry(tmp_path / "registry", authentication=tokens.authentication) as registry,
    ):
        node.login(registry.host)
        reference = f"{registry.host}/{REPOSITORY}:1"
        with node.program() as program:
            push(program, parse_reference(reference), image)
            assert tokens.exchanges == [[f"repository:{REPOSITORY}:pull,push"]]
            tokens.exchanges.clear()
            layers = resolve(program, reference).manifest.layers
            sources = [open_layer(program, reference, each) for each in layers]
            assert [read(each, 0, 50_000) for each in sources] == list(image.layers)
            assert tokens.exchanges == [[f"repository:{REPOSITORY}:pull"]]
            # Every token of before becomes worthless, in the middle of a mount's life.
            registry.stop()
            tokens.change_key()
            registry.start()
            assert [read(each, 100, 200) for each in sources] == [layer[100:200] for layer in image.layers]
            assert len(tokens.exchanges) == 2


def test_a_blob_is_taken_over_with_a_token_for_both_repositories(
    node: Node, image: LayoutImage, tmp_path: Path
) -> None:
    with (
        TokenServer(tmp_path / "tokens", {"robot": PASSWORD}) as tokens,
        DockerRegistry(tmp_path / "registry", authentication=tokens.authentication) as registry,
    ):
        node.login(registry.host)
        reference = parse_reference(f"{registry.host}/{REPOSITORY}:1")
        with node.program() as program:
            push(program, reference, image)
            store = open_store(program.hooks, parse_reference(f"{registry.host}/tests/taken-over:1"))
            tokens.exchanges.clear()
            for descriptor in image.descriptors:
                assert store.take_blob(descriptor, reference)
                assert store.has_blob(descriptor.digest, descriptor.size)
            own = "repository:tests/taken-over:pull,push"
            assert tokens.exchanges == [[own, f"repository:{REPOSITORY}:pull"], [own]]


# --- mirrors -------------------------------------------------------------------------------------


def test_mirror_and_origin_go_down_and_come_back(node: Node, image: LayoutImage, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "origin") as origin, DockerRegistry(tmp_path / "mirror") as mirror:
        write_image(tmp_path / "layout", "1", image)
        for each in (origin, mirror):
            each.push_layout(tmp_path / "layout", "1", f"{REPOSITORY}:1")
        node.write_hosts(origin.host, f'[host."{mirror.url}"]\ncapabilities = ["pull"]')
        reference = f"{origin.host}/{REPOSITORY}:1"
        layer = image.layers[0]
        with node.program() as program:
            source = open_layer(program, reference, resolve(program, reference).manifest.layers[0])
            assert read(source, 0, 1000) == layer[:1000]
            assert source.describe().startswith(mirror.host)
            mirror.kill()
            assert read(source, 1000, 2000) == layer[1000:2000]
            assert source.describe().startswith(origin.host)
            mirror.start()
            origin.kill()
            assert read(source, 2000, 3000) == layer[2000:3000]
            source.check()
            assert source.describe().startswith(mirror.host)
            mirror.kill()
            with pytest.raises(UnavailableError, match="before that"):
                read(source, 3000, 4000)
            origin.start()
            assert read(source, 3000, 4000) == layer[3000:4000]


@pytest.mark.fuse
def test_a_mounted_image_is_read_on_while_places_come_and_go(tmp_path: Path) -> None:
    files = {name: random.Random(name).randbytes(3_000_000) for name in "abcd"}
    write_image(tmp_path / "layout", "1", LayoutImage([tar_of(files)], MACHINE))
    with DockerRegistry(tmp_path / "origin") as origin, DockerRegistry(tmp_path / "mirror") as mirror:
        shell = CommandLine(
            tmp_path / "shell",
            **{
                "background.enabled": "false",
                "prefetch.enabled": "false",
                # So that a file is not fetched with its neighbour; backwards, so that none is fetched ahead.
                "fetch.window_min": "65536",
                "fetch.window_max": "65536",
                "plugin.resolver_registry.mirror_rest": "0",
                "plugin.resolver_registry.attempts": "2",
            },
        )
        shell.directory.mkdir()
        for each in (origin, mirror):
            shell.run("convert", f"oci:{tmp_path}/layout:1", f"{each.host}/{REPOSITORY}:1")
        shell.settings["resolver.hosts"] = (
            f'[{{host = "{origin.host}", server = "{origin.url}", mirrors = [{{url = "{mirror.url}"}}]}}]'
        )
        with shell.mounted(f"{origin.host}/{REPOSITORY}:1") as mountpoint:
            assert (mountpoint / "d").read_bytes() == files["d"]
            assert shell.status()[0]["layers"][0]["source"].startswith(mirror.host)
            mirror.kill()
            assert (mountpoint / "c").read_bytes() == files["c"]
            assert shell.status()[0]["layers"][0]["source"].startswith(origin.host)
            mirror.start()
            origin.kill()
            assert (mountpoint / "b").read_bytes() == files["b"]
            mirror.kill()
            with pytest.raises(OSError, match="Input/output error"):
                (mountpoint / "a").read_bytes()
            origin.start()
            assert (mountpoint / "a").read_bytes() == files["a"]


# --- a storage behind signed addresses -----------------------------------------------------------


def test_signed_addresses_expire_in_the_middle(node: Node, image: LayoutImage, tmp_path: Path) -> None:
    write_image(tmp_path / "layout", "1", image)
    with (
        DockerRegistry(tmp_path / "registry") as registry,
        ScriptedRegistry() as redirects,
        StorageFront(tmp_path / "nginx", registry, redirects.url) as front,
    ):
        registry.push_layout(tmp_path / "layout", "1", f"{REPOSITORY}:1")
        redirects.content.add_layout(tmp_path / "layout", REPOSITORY, "1")
        signer = redirects.redirect_blobs(front.url, signer=NginxSigner(300))
        reference = f"{front.host}/{REPOSITORY}:1"
        layer = image.layers[0]
        with node.program() as program:
            descriptor = resolve(program, reference).manifest.layers[0]
            source = open_layer(program, reference, descriptor)
            redirects.forget_requests()
            for start in range(0, 10_000, 1000):
                assert read(source, start, start + 1000) == layer[start : start + 1000]
            assert len(redirects.requests) == 1, "the address is remembered"
            signer.lifetime = 3
            source = open_layer(program, reference, descriptor)
            assert read(source, 0, 1000) == layer[:1000]
            path = f"/storage/{descriptor.digest}"
            expired = f"{front.url}{path}?{signer.sign(path)}"
            wait_until(lambda: httpx.get(expired, trust_env=False).status_code == 410, "an address expires")
            signer.lifetime = 300
            redirects.forget_requests()
            ranges = [ByteRange(5, 10), ByteRange(20_000, 30_000), ByteRange(49_999, 50_000)]
            pieces = b"".join(piece for _, piece in source.fetch(ranges))
            assert pieces == b"".join(layer[start:end] for start, end in ranges)
            source.check()
            assert len(redirects.requests) == 1, "it was resolved again, once"
            # nginx writes down a request some time after its answer.
            wait_until(
                lambda: front.statuses("/storage/")[-4:] == [410, 410, 206, 206],
                "the storage refused twice, the test and the source, and then served the piece and the check",
            )
