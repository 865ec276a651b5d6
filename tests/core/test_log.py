from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from loguru import logger

from lazylayer.api.settings import LogSettings
from lazylayer.api.text import one_line, scrub
from lazylayer.cli.log import enable_plugins, set_up
from lazylayer.cli.secretnames import is_secret_name
from lazylayer.plugin.records import PluginRecord


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root, level, handlers = logging.getLogger(), logging.getLogger().level, logging.getLogger().handlers[:]
    yield
    logger.remove()
    logger.disable("lazylayer")
    root.setLevel(level)
    root.handlers[:] = handlers


def listen(level: str = "DEBUG", form: str = "text") -> io.StringIO:
    stream = io.StringIO()
    set_up(LogSettings(level=level, format=form), stream)  # type: ignore[arg-type]
    return stream


def say(message: str, **values: object) -> None:
    """Logs as a module of the core would."""
    namespace = {"__name__": "lazylayer.somewhere", "logger": logger}
    exec("def call(message, **values): logger.warning(message, **values)", namespace)
    namespace["call"](message, **values)  # type: ignore[operator]


class TestLines:
    def test_text(self) -> None:
        stream = listen()
        say("layer {digest} is here", digest="sha256:1")
        line = stream.getvalue()
        assert line.endswith(" WARNING lazylayer.somewhere: layer sha256:1 is here\n")
        assert line.count("\n") == 1

    def test_json(self) -> None:
        stream = listen(form="json")
        say("layer {digest} is here", digest="sha256:1", size=3)
        fields = json.loads(stream.getvalue())
        assert fields.pop("time").startswith("20")
        assert fields == {
            "level": "WARNING",
            "logger": "lazylayer.somewhere",
            "message": "layer sha256:1 is here",
            "digest": "sha256:1",
            "size": 3,
        }

    def test_fields_cannot_replace_ours(self) -> None:
        stream = listen(form="json")
        say("real", level="fake", logger="fake")
        assert json.loads(stream.getvalue())["level"] == "WARNING"

    def test_level(self) -> None:
        stream = listen("ERROR")
        say("quiet")
        assert stream.getvalue() == ""

    @pytest.mark.parametrize("form", ["text", "json"])
    def test_names_from_archives_cannot_forge_lines(self, form: str) -> None:
        stream = listen(form=form)
        say("bad name {name}", name="a\n2026-01-01 ERROR x: forged\x1b[2J\x9b\u2028 \udcff {brace}")
        assert stream.getvalue().count("\n") == 1
        assert "\x1b" not in stream.getvalue()
        assert "{brace}" in stream.getvalue()

    def test_undecodable_names_can_be_written(self) -> None:
        raw = io.BytesIO()
        set_up(LogSettings(), io.TextIOWrapper(raw, encoding="ascii", write_through=True))
        say("name {name}", name="a\udcff…")
        assert raw.getvalue().endswith(b"name a\\udcff\\u2026\n")

    def test_stderr_is_the_default(self, capsys: pytest.CaptureFixture[str]) -> None:
        set_up(LogSettings())
        say("hello")
        assert "hello" in capsys.readouterr().err

    def test_set_up_again_replaces(self) -> None:
        first, second = listen(), listen()
        say("hello")
        assert first.getvalue() == ""
        assert "hello" in second.getvalue()


class TestTraces:
    def fail(self, password: str) -> None:
        raise ValueError("no good")

    @pytest.mark.parametrize("form", ["text", "json"])
    def test_no_local_variables(self, form: str) -> None:
        stream = listen(form=form)
        try:
            self.fail("".join(["hunt", "er2"]))  # tracebacks show this line
        except ValueError as error:
            logger.enable(__name__)
            logger.opt(exception=error).warning("failed")
        assert "ValueError: no good" in stream.getvalue()
        assert "hunter2" not in stream.getvalue()

    def test_secrets_in_traces_are_struck_out(self) -> None:
        stream = listen()
        logger.enable(__name__)
        try:
            raise ValueError("GET https://me:hunter2@host.test/?sig=hunter2 \x1b[2J")
        except ValueError as error:
            logger.opt(exception=error).warning("failed")
        assert "hunter2" not in stream.getvalue()
        assert "\x1b" not in stream.getvalue()


class TestSecrets:
    @pytest.mark.parametrize(
        "text",
        [
            "Authorization: Bearer hunter2hunter2",
            "{'authorization': 'Basic aHVudGVyMg=='}",
            "bearer abc.hunter2.def",
            "https://me:hunter2@registry.test/v2/",
            "https://cdn.test/blob?X-Amz-Signature=hunter2&X-Amz-Date=1",
            "password=hunter2",
            'password: "hunter2 with blanks"',
            "{'identity_token': 'hunter2'}",
            "refresh_token=hunter2&x=1",
            '{"registry_token": "hunter2"}',
            "client-secret = hunter2",
            "PASSWORD=hunter2",
        ],
    )
    @pytest.mark.parametrize("form", ["text", "json"])
    def test_are_struck_out(self, text: str, form: str) -> None:
        assert "hunter2" not in scrub(text)
        assert "***" in scrub(text)
        stream = listen(form=form)
        say("said {text}", text=text)
        assert "hunter2" not in stream.getvalue()
        assert "aHVudGVyMg" not in stream.getvalue()

    def test_fields_by_name(self) -> None:
        stream = listen(form="json")
        say("x", password="hunter2")
        assert json.loads(stream.getvalue())["password"] == "***"

    @pytest.mark.parametrize(
        "text",
        [
            "basic authentication is wanted",
            "no password for host registry.test",
            "https://registry.test/v2/a/b/blobs/sha256:00",
            "registry.test/image@sha256:00",
            "the bearer realm",
        ],
    )
    def test_plain_words_stay(self, text: str) -> None:
        assert scrub(text) == text

    def test_names(self) -> None:
        assert is_secret_name("identity_token")
        assert is_secret_name("Password")
        assert not is_secret_name("max_bytes")

    def test_one_line(self) -> None:
        assert one_line("a\nb password=x") == "a\\nb password=***"
        assert one_line("\x1b[2J\x9b\u202eevil\udcff").isprintable()


class TestOthers:
    def test_library_is_silent_until_set_up(self) -> None:
        stream = io.StringIO()
        logger.remove()
        logger.add(stream)
        say("no request")
        assert stream.getvalue() == ""

    def test_plugins_are_heard_when_enabled(self) -> None:
        stream = listen()
        namespace = {"__name__": "lazylayer_mine.inner", "logger": logger}
        logger.disable("lazylayer_mine")
        exec("def call(): logger.warning('from a plugin')", namespace)
        namespace["call"]()  # type: ignore[operator]
        assert stream.getvalue() == ""
        enable_plugins([PluginRecord("mine", target="lazylayer_mine.inner:Plugin")])
        namespace["call"]()  # type: ignore[operator]
        assert "lazylayer_mine.inner: from a plugin" in stream.getvalue()

    def test_standard_logging_is_heard_from_warning_on(self) -> None:
        stream = listen()
        logging.getLogger("httpx").info("HTTP Request: GET https://registry.test/?token=1")
        logging.getLogger("some.library").info("talk")
        assert stream.getvalue() == ""
        logging.getLogger("some.library").warning("careful: %s {}", "{x}")
        assert stream.getvalue().endswith("WARNING some.library: careful: {x} {}\n")
