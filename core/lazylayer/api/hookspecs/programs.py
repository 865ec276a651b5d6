"""The hooks of a program: its start, what happens in it, and its end."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING

from lazylayer import hookspec

if TYPE_CHECKING:
    import msgspec

    from lazylayer.api.events import StateEvent
    from lazylayer.api.settings import Settings


@hookspec
def lazylayer_configure(settings: Settings, options: msgspec.Struct | None) -> None:
    """Take the settings and your options; called once, before every other hook.

    All plugins are called.

    :param settings: the core's settings. They hold no options of plugins.
    :param options: the table `[plugin.NAME]` as an instance of the `Options` that you declare: a frozen
        `msgspec.Struct` of this name in your class or its module. None if there is none.

    Example::

        @hookimpl
        def lazylayer_configure(self, settings, options):
            self.directory = options.directory or f"{settings.root}/mine"

    Threading and errors: called from the main thread. Raise `SkipPlugin(reason)` to be left out, and
    `ConfigurationError` for options that contradict each other. Open nothing yet.
    """


@hookspec
def lazylayer_daemon_started(frontend: str) -> None:
    """Start what only a daemon needs, and prepare for its first mount.

    All plugins are called, once, when the daemon already serves. Short-lived commands never call it.

    :param frontend: the frontend that the daemon mounts with; empty if none works here.

    Example::

        @hookimpl
        def lazylayer_daemon_started(self):
            self.client = heavy_library.connect()

    Threading and errors: called from the main thread; the daemon is ready when you return. An error is logged.
    """


@hookspec
def lazylayer_report_state(event: StateEvent) -> None:
    """Hear what happened: mounted, fetched, failed, and so on.

    All plugins are called. One that fails is logged, and the others are still called.

    :param event: what happened (`lazylayer.api.events.StateEvent`).

    Example::

        @hookimpl
        def lazylayer_report_state(event):
            journal.write(event.kind, event.error)

    Threading and errors: a mount or a failed read waits: return soon. Never called for a read that went well.
    """


@hookspec
def lazylayer_interrupt() -> None:
    """Fail what you wait for on behalf of others, at once: the program is about to end.

    All plugins are called, once, before layers and caches are closed. Requests under way, and those that come
    later, raise UnavailableError. A plugin that only computes, or waits for milliseconds, does not need it.

    Example::

        @hookimpl
        def lazylayer_interrupt(self):
            self.connections.shut_down()

    Threading and errors: called from any thread, while others wait inside your hooks and objects: do not wait for
    them. An error is logged.
    """


@hookspec
def lazylayer_close() -> None:
    """Release what you hold: threads, sockets, files.

    All plugins are called, when the program closes.

    Example::

        @hookimpl
        def lazylayer_close(self):
            self.thread.stop()

    Threading and errors: called from the main thread, as the last hook. Return within seconds. An error is logged.
    """
