from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.settings import PluginsSettings, Settings, default_root, default_run
from lazylayer.cli.choice import load_plugin_choice
from lazylayer.cli.config import check_configuration, values_of
from lazylayer.cli.quick import read_run_directory
from lazylayer.configuration import files
from lazylayer.configuration.layers import Setting, dotted, leaves, merge_settings, parse_key
from lazylayer.configuration.loading import Configuration, load_configuration
from lazylayer.errors import ConfigurationError
from lazylayer.plugin.options import read_options


@pytest.fixture(autouse=True)
def no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "DEFAULT_FILE", tmp_path / "etc" / "lazylayer.toml")
    for name in os.environ:
        if name.startswith("LAZYLAYER_"):
            monkeypatch.delenv(name)


def write(directory: Path, text: str, name: str = "lazylayer.toml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tables(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with keys that dynaconf might take for something else."""
    odd = st.sampled_from(
        ["a.b", "a__b", "a___0", "x[0]", "dynaconf_merge", "A", "quoted_61", "127.0.0.1:5000", "", "_"]
    )
    return st.dictionaries(odd | st.text(max_size=3), values, max_size=4)


def load(config: Path | None = None, *overrides: str, **environment: str) -> Configuration:
    return load_configuration(config, overrides, environment)


def problem(config: Path | None = None, *overrides: str, **environment: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(config, *overrides, **environment)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestLayers:
    def test_defaults(self) -> None:
        found = load()
        assert found.settings == Settings()
        assert found.files == ()
        assert found.origin(parse_key("cache.chunks")) == "default"
        assert found.settings.cache.chunks == "auto"

    def test_default_file_is_read_when_it_exists(self, tmp_path: Path) -> None:
        file = write(tmp_path / "etc", "[fetch]\nthreads = 3\n")
        assert load().settings.fetch.threads == 3
        assert load().files == (file,)

    def test_later_layers_are_stronger(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[fetch]\nthreads = 1\nwindow_min = 11\nwindow_max = 12\n[log]\nlevel = 'ERROR'\n")
        write(tmp_path, "[fetch]\nthreads = 2\nwindow_min = 21\n", "conf.d/20-b.toml")
        write(tmp_path, "[fetch]\nthreads = 3\nwindow_max = 32\n", "conf.d/10-a.toml")
        found = load(main, "fetch.threads=5", LAZYLAYER_FETCH__THREADS="4", LAZYLAYER_FETCH__WINDOW_MAX="42")
        assert found.settings.fetch.threads == 5
        assert found.settings.fetch.window_min == 21
        assert found.settings.fetch.window_max == 42
        assert found.settings.log.level == "ERROR"
        assert found.origin(parse_key("fetch.threads")) == "--set fetch.threads"
        assert found.origin(parse_key("fetch.window_min")) == str(tmp_path / "conf.d/20-b.toml")
        assert found.origin(parse_key("fetch.window_max")) == "environment variable LAZYLAYER_FETCH__WINDOW_MAX"
        assert found.origin(parse_key("log.level")) == str(main)
        assert found.origin(parse_key("log.format")) == "default"

    def test_lists_are_replaced(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[plugins]\ndisabled = ['a', 'b']\nrequired = ['r']\n")
        write(tmp_path, "[plugins]\ndisabled = ['c']\n", "conf.d/1.toml")
        assert load(main).settings.plugins == PluginsSettings(disabled=("c",), required=("r",))
        assert load(main, 'plugins.disabled=["d"]').settings.plugins.disabled == ("d",)
        assert load(main, LAZYLAYER_PLUGINS__DISABLED="[]").settings.plugins.disabled == ()

    def test_tables_of_plugins_are_merged(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[plugin.one]\na = 1\nb = [1]\n[plugin.two]\nc = 'x'\n")
        write(tmp_path, "[plugin.one]\na = 2\n[plugin.three]\n", "conf.d/1.toml")
        found = load(main, "plugin.two.d.e=3", LAZYLAYER_PLUGIN__ONE__F="text")
        assert found.plugin_tables["plugin"] == {
            "one": {"a": 2, "b": [1], "f": "text"},
            "two": {"c": "x", "d": {"e": 3}},
            "three": {},
        }
        assert found.origin(parse_key("plugin.one.a")).endswith("1.toml")
        assert found.origin(parse_key("plugin.one.b")) == str(main)
        assert found.origin(parse_key("plugin.two.d.e")) == "--set plugin.two.d.e"
        assert found.origin(parse_key("plugin.three")).endswith("1.toml")

    def test_an_empty_table_takes_nothing_away(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[plugin.one]\na = 1\n[cache]\nchunks = 'x'\n")
        write(tmp_path, "[plugin.one]\n[cache]\n", "conf.d/1.toml")
        assert load(main).plugin_tables["plugin"] == {"one": {"a": 1}}
        assert load(main).settings.cache.chunks == "x"

    def test_hosts_as_keys_stay_whole(self, tmp_path: Path) -> None:
        main = write(tmp_path, '[plugin.one.host."127.0.0.1:5000"]\nmirrors = ["Registry.Test"]\n')
        found = load(main, 'plugin.one.host."127.0.0.1:5000".retries=3')
        host = {"mirrors": ["Registry.Test"], "retries": 3}
        assert found.plugin_tables["plugin"] == {"one": {"host": {"127.0.0.1:5000": host}}}
        assert found.origin(("plugin", "one", "host", "127.0.0.1:5000", "mirrors")) == str(main)

    def test_keys_keep_their_case(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[plugin.one]\nCamelCase = 1\n[plugin.one.labels]\nKEY = 'Value'\n")
        assert load(main).plugin_tables["plugin"] == {"one": {"CamelCase": 1, "labels": {"KEY": "Value"}}}


class TestValues:
    @pytest.mark.parametrize(
        "text", ["123", "True", "2024-01-01", "a,b", "[x", "1e5", "@int 3", "", "@read_file /etc/passwd"]
    )
    def test_text_stays_text(self, text: str) -> None:
        assert load(None, f"mount.frontend={text}").settings.mount.frontend == text
        assert load(None, LAZYLAYER_MOUNT__FRONTEND=text).settings.mount.frontend == text

    @pytest.mark.parametrize("quoted", ["'cache_x'", '"cache_x"'])
    def test_text_may_be_quoted_as_in_toml(self, quoted: str) -> None:
        assert load(None, f"cache.chunks={quoted}").settings.cache.chunks == "cache_x"

    @pytest.mark.parametrize(
        "text", ["@int 3", "@read_file /etc/passwd", "@format {env[HOME]}", "@jinja {{1}}", "@none"]
    )
    def test_nothing_is_evaluated(self, tmp_path: Path, text: str) -> None:
        main = write(tmp_path, f"[plugin.one]\nsecret = {json.dumps(text)}\nlist = [{json.dumps(text)}]\n")
        found = load(main, f"plugin.two.x={text}", LAZYLAYER_PLUGIN__THREE__X=text)
        assert found.plugin_tables["plugin"] == {
            "one": {"secret": text, "list": [text]},
            "two": {"x": text},
            "three": {"x": text},
        }

    def test_values_are_read_as_toml(self) -> None:
        found = load(
            None,
            "fetch.verify=false",
            "background.silence=3",
            "mount.prefer=['a', 'b']",
            "plugin.x.size=1_000",
            "plugin.x.ratio=0.5",
            'plugin.x.hosts={"a.test:1"=["b"]}',
        )
        assert found.settings.fetch.verify is False
        assert found.settings.background.silence == 3.0
        assert found.settings.mount.prefer == ("a", "b")
        assert found.plugin_tables["plugin"] == {"x": {"size": 1000, "ratio": 0.5, "hosts": {"a.test:1": ["b"]}}}

    def test_only_our_variables_count(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        write(tmp_path, "[cache]\nchunks = 'leak'\n", "lazylayer.local.toml")
        write(tmp_path, "[cache]\nchunks = 'leak'\n", ".secrets.toml")
        main = write(tmp_path, "[plugins]\ndisabled = ['a']\n")
        write(tmp_path, "[plugins]\ndisabled = ['b']\n", "conf.d/1.toml")
        monkeypatch.chdir(tmp_path)
        for name, value in {
            "DYNACONF_CACHE__CHUNKS": "leak",
            "MERGE_ENABLED_FOR_DYNACONF": "true",
            "SETTINGS_FILE_FOR_DYNACONF": "lazylayer.local.toml",
            "SECRETS_FOR_DYNACONF": ".secrets.toml",
            "CACHE__CHUNKS": "leak",
        }.items():
            monkeypatch.setenv(name, value)
        found = load_configuration(main)
        assert found.settings.cache.chunks == "auto"
        assert found.settings.plugins.disabled == ("b",)

    @hypothesis.settings(max_examples=40, deadline=None)
    @given(st.recursive(st.text() | st.integers() | st.booleans(), lambda inner: st.lists(inner) | tables(inner)))
    def test_anything_for_a_plugin_comes_through(self, value: object) -> None:
        settings = [Setting(("plugin", "p", *path), each, "here") for path, each in leaves({"it": value})]
        merged, origins = merge_settings(settings)
        assert merged == {"plugin": {"p": {"it": value}}}
        assert set(origins) == {setting.path for setting in settings}

    @hypothesis.settings(max_examples=40, deadline=None)
    @given(st.lists(tables(st.integers() | tables(st.integers() | tables(st.integers()))), min_size=1))
    def test_layers_are_merged_like_dictionaries(self, layers: list[dict[str, object]]) -> None:
        def merge(old: dict[str, object], new: dict[str, object]) -> dict[str, object]:
            merged = dict(old)
            for key, value in new.items():
                both = isinstance(value, dict) and isinstance(old.get(key), dict)
                merged[key] = merge(old[key], value) if both else value  # type: ignore[arg-type]
            return merged

        expected: dict[str, object] = {}
        for layer in layers:
            expected = merge(expected, {"plugin": {"p": layer}} if layer else {"plugin": {"p": {}}})
        settings = [Setting(path, each, "x") for layer in layers for path, each in leaves({"plugin": {"p": layer}})]
        assert merge_settings(settings)[0] == expected

    @given(st.lists(st.text(min_size=1), min_size=1).map(tuple))
    def test_dotted_keys_can_be_parsed(self, path: tuple[str, ...]) -> None:
        assert parse_key(dotted(path)) == path


class TestErrors:
    def test_unknown_key_names_file_and_key_and_the_nearest_one(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[cache]\nchunk = 'x'\n")
        assert problem(main) == f"{main}: unknown key cache.chunk; did you mean cache.chunks?"
        assert "unknown key chunks; did you mean cache.chunks?" in problem(None, "chunks=x")
        assert "docs/configuration.md" in problem(None, "zzz.qqq=1")

    def test_case_matters(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[Cache]\nchunks = 'x'\n")
        assert "unknown key Cache.chunks; did you mean cache.chunks?" in problem(main)

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("fetch.threads=many", 'fetch.threads: expected a whole number, at least 1, not "many"'),
            ("fetch.threads=0", "fetch.threads: expected a whole number, at least 1, not 0"),
            ("fetch.verify=1", "fetch.verify: expected true or false, not 1"),
            (
                "prefetch.timeout=-1",
                'prefetch.timeout: expected a duration like "30s" or "1m30s", or a number of seconds, '
                "more than 0, not -1",
            ),
            ("log.level=LOUD", 'log.level: expected one of "TRACE", "DEBUG", "INFO", "WARNING", "ERROR", not "LOUD"'),
            ("plugins.enabled=a,b", 'plugins.enabled: expected an array, as in ["one", "two"], not "a,b"'),
            ("cache=x", "cache: expected a table, [cache]"),
            ("cache.chunks.x=1", "unknown key cache.chunks.x; did you mean cache.chunks?"),
            ("plugin=x", "plugin: expected a table, [plugin.NAME]"),
            ("plugin.x=1", "plugin.x: expected a table, [plugin.NAME]"),
            ("fetch.window_min=99999999", "fetch.window_min (99999999) is larger than fetch.window_max"),
            ("root=relative", "root: expected an absolute path, not 'relative'"),
            ("resolve.platform=linux", "resolve.platform: not a platform"),
        ],
    )
    def test_wrong_values(self, override: str, said: str) -> None:
        key = override.partition("=")[0]
        assert problem(None, override).startswith(f"--set {key}: ")
        assert said in problem(None, override)

    def test_environment_is_named(self) -> None:
        said = problem(None, LAZYLAYER_FETCH__THREDS="3")
        assert said == (
            "environment variable LAZYLAYER_FETCH__THREDS: unknown key fetch.threds; did you mean fetch.threads?"
        )

    def test_override_without_value(self) -> None:
        assert problem(None, "cache.chunks") == "--set cache.chunks: expected KEY=VALUE, as in cache.chunks=cache_dir"
        assert "expected KEY=VALUE" in problem(None, "=x")

    def test_named_file_must_exist(self, tmp_path: Path) -> None:
        assert "no such file" in problem(tmp_path / "missing.toml")
        assert "no such file" in problem(tmp_path)

    def test_bad_toml_names_file_and_line(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[cache]\nchunks = \n")
        assert re.search(rf"{re.escape(str(main))}: not TOML: .*line 2", problem(main))
        main.write_bytes(b"root = '\xff'\n")
        assert f"{main}: not TOML" in problem(main)

    def test_huge_file_is_not_read(self, tmp_path: Path) -> None:
        main = write(tmp_path, "#" * (files.MAX_FILE_SIZE + 1))
        assert f"{main}: larger than" in problem(main)

    def test_unreadable_file(self, tmp_path: Path) -> None:
        main = write(tmp_path, "")
        (tmp_path / "conf.d" / "1.toml").mkdir(parents=True)
        assert "1.toml: cannot be read: Is a directory" in problem(main)

    def test_check_finds_everything(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[cache]\nchunk = 'x'\n[fetch]\nthreads = 'y'\n")
        found = check_configuration(main, ["nope=1"], {})
        assert [each.key for each in found] == ["cache.chunk", "fetch.threads", "nope"]
        assert "(and 2 more: see `lazylayer config check`)" in problem(main, "nope=1")
        assert check_configuration(main, ["nope"], {})[0].args[0].startswith("--set nope")
        assert check_configuration(None, ["root=x"], {})[0].key == "root"
        assert check_configuration(None, [], {}) == []


class TestPluginOptions:
    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        max_bytes: int = 7
        hosts: dict[str, list[str]] = {}

    def options(self, *overrides: str) -> Options:
        return read_options(load(None, *overrides).plugin_tables, "mine", self.Options)

    def refusal(self, *overrides: str) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as error:
            self.options(*overrides)
        return load(None, *overrides).located(error.value)

    def test_defaults_and_values(self) -> None:
        assert self.options() == self.Options()
        assert self.options("plugin.mine.max_bytes=9").max_bytes == 9

    def test_unknown_option(self) -> None:
        error = self.refusal("plugin.mine.max_byte=9")
        assert error.key == "plugin.mine.max_byte"
        assert str(error) == ("--set plugin.mine.max_byte: unknown key plugin.mine.max_byte; did you mean max_bytes?")

    def test_wrong_type(self) -> None:
        error = self.refusal("plugin.mine.max_bytes=x")
        assert error.key == "plugin.mine.max_bytes"
        assert str(error) == "--set plugin.mine.max_bytes: plugin.mine.max_bytes: expected a whole number"

    def test_wrong_type_inside(self) -> None:
        error = self.refusal('plugin.mine.hosts={"a"=[1]}')
        assert str(error) == '--set plugin.mine.hosts: plugin.mine.hosts: expected text in quotes, as in "text" (in it)'

    def test_located_adds_the_place_once(self) -> None:
        found = load(None, "plugin.mine.x=1")
        once = found.located(ConfigurationError("wrong", key="plugin.mine.x"))
        assert str(once) == "--set plugin.mine.x: wrong"
        assert found.located(once) is once
        unknown = ConfigurationError("wrong", key="log.level")
        assert found.located(unknown) is unknown


class TestPluginChoice:
    def test_files_are_enough(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[plugins]\nenabled = ['a']\n[cache]\nchunks = 'x'\n")
        write(tmp_path, "[plugins]\ndisabled = ['b']\n", "conf.d/1.toml")
        assert load_plugin_choice(main) == (("a",), ("b",))

    def test_other_layers_count(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        main = write(tmp_path, "[plugins]\nenabled = ['a']\n")
        assert load_plugin_choice(main, ["plugins.enabled=['b']"]).enabled == ("b",)
        monkeypatch.setenv("LAZYLAYER_PLUGINS__ENABLED", "['c']")
        assert load_plugin_choice(main).enabled == ("c",)

    def test_errors(self, tmp_path: Path) -> None:
        main = write(tmp_path, "[plugins]\nenabled = 3\n")
        with pytest.raises(ConfigurationError, match="plugins"):
            load_plugin_choice(main)


class TestDirectories:
    def test_of_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
        assert (default_root(), default_run()) == ("/var/lib/lazylayer", "/run/lazylayer")

    def test_of_a_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("HOME", "/home/me")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        assert default_root() == "/home/me/.cache/lazylayer"
        assert default_run() == "/home/me/.cache/lazylayer/run"
        monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
        assert load().settings.root == "/elsewhere/lazylayer"
        assert load().settings.run == "/run/user/1000/lazylayer"

    def test_relative_directories_are_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("HOME", "/home/me")
        monkeypatch.setenv("XDG_CACHE_HOME", "here")
        assert default_root() == "/home/me/.cache/lazylayer"


def test_values_and_origins_cover_every_key() -> None:
    found = load(None, "plugin.x.y=1")
    shown = {dotted(path): (value, origin) for path, value, origin in values_of(found, found.plugin_tables)}
    assert shown["plugin.x.y"] == (1, "--set plugin.x.y")
    of_the_core = {path[0] for path, _, _ in values_of(found, {})}
    assert {path.partition(".")[0] for path in shown} == of_the_core | {"plugin"}
    assert of_the_core == set(Settings.__struct_encode_fields__)


@pytest.mark.seed(1)
@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["cache.ranges=cache_memory"], "cache.ranges", "cache_memory"),  # http_cache_type
        (["cache.chunks=cache_memory"], "cache.chunks", "cache_memory"),  # filesystem_cache_type
        ([], "cache.ranges", "auto"),
        ([], "cache.chunks", "auto"),
        (["plugin.cache_memory.max_bytes=1000"], "plugin.cache_memory.max_bytes", 1000),  # lru_max_entry, in bytes
        ([], "resolve.keep", 100),  # resolve_result_entry
        (["prefetch.size=5000"], "prefetch.size", 5000),  # prefetch_size
        (["prefetch.enabled=false"], "prefetch.enabled", False),  # noprefetch
        (["mount.debug=true"], "mount.debug", True),  # debug
    ],
)
def test_what_the_go_original_can_be_told(overrides: list[str], key: str, value: object) -> None:
    found = load(None, *overrides)
    assert {dotted(path): each for path, each, _ in values_of(found, found.plugin_tables)}[key] == value


# --- the run directory alone ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "override", "expected"),
    [
        (None, None, "/from/file"),
        ("/from/environment", None, "/from/environment"),
        ("'/from/quotes'", None, "/from/quotes"),
        ("/from/environment", 'run = "/from/set"', "/from/set"),
        (None, "log.level=DEBUG", "/from/file"),
    ],
)
def test_the_run_directory_is_read_as_the_whole_configuration_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, override: str | None, expected: str
) -> None:
    file = tmp_path / "lazylayer.toml"
    file.write_text('run = "/from/file"\n[log]\nlevel = "INFO"\n')
    if variable is not None:
        monkeypatch.setenv("LAZYLAYER_RUN", variable)
    overrides = [override] if override is not None else []
    assert read_run_directory(file, overrides) == Path(expected)
    assert load_configuration(file, overrides).settings.run == expected


def test_a_bad_run_directory_is_reported_as_ever(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="run: expected an absolute path"):
        read_run_directory(None, ["run=relative"])


def test_the_default_run_directory_is_known_without_the_settings() -> None:
    assert read_run_directory() == Path(default_run())
