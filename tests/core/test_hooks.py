"""Every hook through the façade: answers, no answers, errors that name the culprit, isolation."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from loguru import logger

from lazylayer import SkipPlugin, hookimpl
from lazylayer.api.credentials import Credentials
from lazylayer.api.events import StateEvent
from lazylayer.api.mounting import VirtualDirectory, VirtualFile
from lazylayer.api.oci import Descriptor, Digest, Platform, Reference, parse_reference
from lazylayer.errors import (
    AuthenticationError,
    BuildError,
    FormatError,
    LazylayerError,
    MountError,
    PluginError,
    ResolveError,
)
from lazylayer.plugin.calling import ANSWERS, make_manager
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.records import PluginRecord
from lazylayer_building.stores import open_store
from synthetic.hooks import any_of, hooks_of, plugin

REFERENCE = parse_reference("registry.test/image:1")
SHELF = Reference("a/b", scheme="shelf")
DESCRIPTOR = Descriptor("application/x", Digest("sha256:" + "0" * 64), 5)
PLATFORM = Platform("linux", "amd64")


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("lazylayer")
    sink = logger.add(lambda line: lines.append(line.rstrip("\n")), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)
    logger.disable("lazylayer")


class Call:
    """How a first-result hook is called, and what is raised without an answer."""

    def __init__(
        self, call: Callable[[Hooks], object], unanswered: type[LazylayerError] | None, says: str = ""
    ) -> None:
        self.call = call
        self.unanswered = unanswered
        self.says = says


ANY: Any = object()
CALLS = {
    "resolve_image": Call(
        lambda hooks: hooks.resolve_image(REFERENCE, PLATFORM),
        ResolveError,
        "registry.test/image:1: no plugin takes registry references",
    ),
    "resolve_blob": Call(
        lambda hooks: hooks.resolve_blob(SHELF, DESCRIPTOR), ResolveError, "no plugin takes shelf:… references"
    ),
    "get_credentials": Call(lambda hooks: hooks.get_credentials("registry.test", REFERENCE), None),
    "open_layer": Call(
        lambda hooks: hooks.open_layer(ANY, DESCRIPTOR, True, ANY),
        FormatError,
        "unsupported format",
    ),
    "plan_prefetch": Call(lambda hooks: hooks.plan_prefetch(ANY, {}), None),
    "recognize_mount": Call(lambda hooks: hooks.recognize_mount(ANY), None),
    "open_store": Call(lambda hooks: open_store(hooks, SHELF), BuildError, "no plugin takes shelf:… references"),
}
FORMATS = {"describe_format", "build_layer"}
"""Tested in test_formats.py."""
BY_NAME = {"open_cache", "probe_frontend", "mount_tree"}
"""Tested in test_named_plugins.py."""
TO_ALL = {
    "configure",
    "daemon_started",
    "layer_opened",
    "prefetch_image",
    "add_virtual_entries",
    "annotate_layers",
    "report_state",
    "interrupt",
    "close",
}


def test_every_hook_is_covered_here() -> None:
    specs = {name.removeprefix("lazylayer_") for name in dir(make_manager().hook) if name.startswith("lazylayer_")}
    assert specs == set(CALLS) | TO_ALL | FORMATS | BY_NAME


def test_every_hook_has_a_method() -> None:
    for name in (CALLS.keys() | TO_ALL) - {"configure", "open_store"}:
        assert inspect.getdoc(getattr(Hooks, name)), name


@pytest.mark.parametrize("name", CALLS)
class TestFirstResult:
    def test_answer(self, name: str) -> None:
        answer = any_of(name)
        hooks = hooks_of(
            one=plugin(**{name: lambda: None}),
            two=plugin(**{name: lambda: answer}),
            three=plugin(**{name: lambda: 1 / 0}),
        )
        assert CALLS[name].call(hooks) is answer

    def test_arguments(self, name: str) -> None:
        arguments = ", ".join(getattr(make_manager().hook, f"lazylayer_{name}").spec.argnames)
        seen: list[list[object]] = []
        namespace: dict[str, Any] = {"seen": seen, "answer": any_of(name)}
        exec(f"def implementation({arguments}): seen.append([{arguments}]); return answer", namespace)
        CALLS[name].call(hooks_of(one=plugin(**{name: namespace["implementation"]})))
        assert len(seen[0]) == len(arguments.split(", "))
        assert None not in seen[0]

    def test_wrong_answer_names_plugin_hook_and_type(self, name: str) -> None:
        record = PluginRecord("two", "lazylayer-two", "1.2")
        hooks = hooks_of(record, one=plugin(**{name: lambda: None}), two=plugin(**{name: lambda: {"a": 1}}))
        with pytest.raises(PluginError) as error:
            CALLS[name].call(hooks)
        (expected,) = ANSWERS[f"lazylayer_{name}"]
        kind = expected.replace(":", ".").removeprefix("builtins.")
        assert str(error.value) == (
            f"plugin two (lazylayer-two 1.2), lazylayer_{name}: it returned dict; expected {kind}"
        )

    def test_unanswered_answers(self, name: str) -> None:
        expected = CALLS[name].unanswered
        hooks = hooks_of(one=plugin(**{name: lambda: None}))
        if expected is None:
            assert CALLS[name].call(hooks) is None
        else:
            with pytest.raises(expected) as error:
                CALLS[name].call(hooks)
            assert CALLS[name].says in str(error.value)
            assert "asked: one" in str(error.value)

    def test_unanswered_is_there(self, name: str) -> None:
        expected = CALLS[name].unanswered
        if expected is not None:
            with pytest.raises(expected, match=f"no installed plugin has lazylayer_{name}"):
                CALLS[name].call(hooks_of())

    def test_failure_names_plugin_version_and_hook(self, name: str) -> None:
        def fail() -> None:
            raise KeyError("lost")

        record = PluginRecord("two", "lazylayer-two", "1.2")
        hooks = hooks_of(record, one=plugin(**{name: lambda: None}), two=plugin(**{name: fail}))
        with pytest.raises(PluginError) as error:
            CALLS[name].call(hooks)
        assert str(error.value) == f"plugin two (lazylayer-two 1.2), lazylayer_{name}: KeyError: 'lost'"
        assert (error.value.plugin, error.value.version, error.value.hook) == ("two", "1.2", f"lazylayer_{name}")
        assert error.value.distribution == "lazylayer-two"
        assert isinstance(error.value.__cause__, KeyError)

    def test_own_errors_go_up_as_they_are(self, name: str) -> None:
        failure = AuthenticationError("no")

        def fail() -> None:
            raise failure

        with pytest.raises(AuthenticationError) as error:
            CALLS[name].call(hooks_of(one=plugin(**{name: fail}), two=plugin(**{name: lambda: 1 / 0})))
        assert error.value is failure


class TestCulprit:
    def blamed(self, *plugins: object) -> str:
        named = {f"number_{number}": each for number, each in enumerate(plugins)}
        with pytest.raises(PluginError) as error:
            hooks_of(**named).plan_prefetch(ANY, {})
        return error.value.plugin

    def test_deep_inside(self) -> None:
        def outer() -> None:
            [1 / each for each in (0,)]

        assert self.blamed(plugin(plan_prefetch=lambda: None), plugin(plan_prefetch=outer)) == "number_1"

    def test_decorated(self) -> None:
        def twice(function: Callable[[], None]) -> Callable[[], None]:
            @functools.wraps(function)
            def call() -> None:
                function()

            return call

        def fail() -> None:
            raise ValueError

        assert self.blamed(plugin(plan_prefetch=twice(lambda: None)), plugin(plan_prefetch=twice(fail))) == "number_1"

    def test_method_of_a_class(self) -> None:
        class Policy:
            @hookimpl
            def lazylayer_plan_prefetch(self, layer: object) -> None:
                raise ValueError

        assert self.blamed(plugin(plan_prefetch=lambda: None), Policy()) == "number_1"

    def test_same_code_in_two_plugins(self) -> None:
        class Policy:
            def __init__(self, fails: bool) -> None:
                self.fails = fails

            @hookimpl
            def lazylayer_plan_prefetch(self, layer: object) -> None:
                if self.fails:
                    raise ValueError

        assert self.blamed(Policy(False), Policy(True)) == "number_1"

    def test_late_skip(self) -> None:
        def fail() -> None:
            raise SkipPlugin("no /dev/x")

        with pytest.raises(PluginError, match="plugin one, lazylayer_plan_prefetch: it cannot be used here: no /dev/x"):
            hooks_of(one=plugin(plan_prefetch=fail)).plan_prefetch(ANY, {})

    def test_wrappers_of_third_parties_work(self) -> None:
        class Wrapper:
            @hookimpl(wrapper=True)
            def lazylayer_get_credentials(self, host: str) -> Iterator[None]:
                found: Any = yield
                return Credentials(found.username, host)  # type: ignore[return-value]

        hooks = hooks_of(wrapper=Wrapper(), one=plugin(get_credentials=lambda: Credentials("me", "secret")))
        assert hooks.get_credentials("h.test", REFERENCE) == Credentials("me", "h.test")

    def test_wrapper_that_fails_is_blamed(self) -> None:
        class Wrapper:
            @hookimpl(wrapper=True)
            def lazylayer_get_credentials(self) -> Iterator[None]:
                yield
                raise ValueError("odd")

        hooks = hooks_of(wrapper=Wrapper(), one=plugin(get_credentials=lambda: None))
        with pytest.raises(PluginError, match="plugin wrapper, lazylayer_get_credentials: ValueError: odd"):
            hooks.get_credentials("h.test", REFERENCE)

    def test_reason_of_an_unusable_plugin_is_told(self) -> None:
        record = PluginRecord("cache_mine", "d", "1", "skipped", "no /dev/x")
        with pytest.raises(ResolveError, match=r"cache_mine \(no /dev/x\)"):
            hooks_of(record).resolve_image(REFERENCE, PLATFORM)


class TestToAll:
    def test_report_state_reaches_everybody_in_order(self) -> None:
        heard: list[str] = []
        hooks = hooks_of(
            one=plugin(report_state=lambda event: heard.append(f"one {event.kind}")),
            two=plugin(report_state=lambda: heard.append("two")),
        )
        hooks.report_state(StateEvent("mounted"))
        assert heard == ["one mounted", "two"]

    def test_report_state_never_raises_and_logs_once(self, log: list[str]) -> None:
        heard: list[str] = []

        def fail() -> None:
            raise MountError("pager is broken")

        hooks = hooks_of(
            one=plugin(report_state=fail),
            two=plugin(report_state=lambda: 1 / 0),
            three=plugin(report_state=lambda: heard.append("three")),
        )
        for _ in range(3):
            hooks.report_state(StateEvent("mounted"))
        assert heard == ["three"] * 3
        assert log == [
            "plugin one, lazylayer_report_state: pager is broken",
            "plugin two, lazylayer_report_state: ZeroDivisionError: division by zero",
        ]

    def test_everybody_is_closed(self, log: list[str]) -> None:
        closed: list[str] = []
        hooks = hooks_of(
            one=plugin(close=lambda: closed.append("one")),
            two=plugin(close=lambda: 1 / 0),
            three=plugin(close=lambda: closed.append("three")),
        )
        hooks.close()
        assert closed == ["one", "three"]
        assert log == ["plugin two, lazylayer_close: ZeroDivisionError: division by zero"]

    def test_everybody_is_interrupted(self, log: list[str]) -> None:
        interrupted: list[str] = []
        hooks = hooks_of(
            one=plugin(interrupt=lambda: interrupted.append("one")),
            two=plugin(interrupt=lambda: 1 / 0),
            three=plugin(interrupt=lambda: interrupted.append("three")),
        )
        hooks.interrupt()
        assert interrupted == ["one", "three"]
        assert log == ["plugin two, lazylayer_interrupt: ZeroDivisionError: division by zero"]

    def test_everybody_prefetches(self, log: list[str]) -> None:
        asked: list[object] = []
        hooks = hooks_of(
            one=plugin(prefetch_image=lambda image: asked.append([image])),
            two=plugin(prefetch_image=lambda: 1 / 0),
            three=plugin(prefetch_image=lambda labels, image: asked.append((image, labels))),
        )
        image: Any = object()
        hooks.prefetch_image(image, {"a": "b"})
        assert asked == [[image], (image, {"a": "b"})]
        assert log == ["plugin two, lazylayer_prefetch_image: ZeroDivisionError: division by zero"]

    def test_everybody_gets_ready(self, log: list[str]) -> None:
        ready: list[str] = []
        hooks = hooks_of(
            one=plugin(daemon_started=lambda frontend: ready.append(str(frontend))),
            two=plugin(daemon_started=lambda: 1 / 0),
            three=plugin(daemon_started=lambda: ready.append("three")),
        )
        hooks.daemon_started("frontend_erofs")
        assert ready == ["frontend_erofs", "three"]
        assert log == ["plugin two, lazylayer_daemon_started: ZeroDivisionError: division by zero"]

    def test_virtual_entries_are_put_together(self, log: list[str]) -> None:
        def files(**contents: bytes) -> dict[bytes, VirtualFile]:
            return {
                name.encode(): VirtualFile(0o444, functools.partial(bytes, data)) for name, data in contents.items()
            }

        hooks = hooks_of(
            one=plugin(add_virtual_entries=lambda: {b".a": VirtualDirectory(0o555, files(x=b"1"))}),
            none=plugin(add_virtual_entries=lambda: None),
            bad=plugin(add_virtual_entries=lambda: 1 / 0),
            wrong=plugin(add_virtual_entries=lambda: 3),
            two=plugin(
                add_virtual_entries=lambda: {
                    b".a": VirtualDirectory(0o500, files(x=b"2", y=b"3")),
                    b".b": VirtualDirectory(0o500, {}),
                }
            ),
        )
        merged = hooks.add_virtual_entries(ANY)
        assert set(merged) == {b".a", b".b"}
        assert merged[b".a"].mode == 0o555
        assert {name: file.content() for name, file in merged[b".a"].files.items()} == {b"x": b"1", b"y": b"3"}
        assert [line.partition(":")[0] for line in log] == [
            "plugin bad, lazylayer_add_virtual_entries",
            "plugin wrong, lazylayer_add_virtual_entries",
        ]


def test_annotations_of_layers_are_put_together_and_the_first_wins(log: list[str]) -> None:
    digest = DESCRIPTOR.digest
    hooks = hooks_of(
        one=plugin(annotate_layers=lambda: {digest: {"a": "1"}}),
        two=plugin(annotate_layers=lambda: 1 / 0),
        three=plugin(annotate_layers=lambda: {digest: {"a": "2", "b": "3", "c": "3"}}),
        four=plugin(annotate_layers=lambda: None),
    )
    here = msgspec.structs.replace(DESCRIPTOR, annotations={"b": "own"})
    (layer,) = hooks.annotate_layers(None, {}, ANY, [here])
    assert layer.annotations == {"a": "1", "b": "own", "c": "3"}
    assert len(log) == 1
    assert "plugin two" in log[0]
