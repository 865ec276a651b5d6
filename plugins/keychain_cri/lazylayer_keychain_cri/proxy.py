"""Proxy the CRI image service byte for byte, and read pulls and removals on the way.

On the wire a unary call is a stream of one message, so every method is proxied as streams, whatever its
kind. All calls run as coroutines of one event loop: a slow pull holds no thread, so any number of pulls
leaves the other methods free. `PullWatch` reads and writes files in worker threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc.aio

from lazylayer_keychain_cri.pulls import PullWatch
from lazylayer_keychain_cri.remembered import RememberedCredentials

__all__ = ["SERVICE", "ImageServiceProxy"]

SERVICE = "/runtime.v1.ImageService/"
"""The prefix of the methods of the image service."""

_OPTIONS = [("grpc.max_receive_message_length", 16 * 1024 * 1024), ("grpc.max_send_message_length", 16 * 1024 * 1024)]
"""The limits of the CRI's own clients and servers."""
_OWN_METADATA = ("grpc-", ":")
_OF_THE_HOP = frozenset({"user-agent", "content-type", "te"})
_FOR_EVER = 1e9
"""Seconds. gRPC says more than this for a call without a deadline."""


class ImageServiceProxy:
    """Serves on one socket what another one answers. It listens once made, and answers once started.

    :param listen: the path of the socket to serve on. Raises RuntimeError if that fails.
    :param backend: the path of the real image service's socket; it may come and go.
    """

    def __init__(self, listen: str, backend: str, store: RememberedCredentials) -> None:
        self._watch = PullWatch(store)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cri-proxy", daemon=True)
        self._thread.start()
        try:
            self._run(self._open(listen, backend))
        except BaseException:
            self._end()
            raise

    def start(self) -> None:
        """Answer calls from now on; returns at once."""
        self._run(self._server.start())

    def close(self, grace: float = 5.0) -> None:
        """Stop serving. Calls in flight have `grace` seconds to end."""
        self._run(self._stop(grace))
        self._end()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self, listen: str, backend: str) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{backend}", options=_OPTIONS)
        self._server = grpc.aio.server(handlers=[_Handlers(self._forward, self._watch)], options=_OPTIONS)
        try:
            self._server.add_insecure_port(f"unix:{listen}")
        except BaseException:
            await self._channel.close()
            raise

    async def _stop(self, grace: float) -> None:
        await self._server.stop(grace)
        await self._channel.close()
        await self._loop.shutdown_default_executor()

    def _forward(
        self, method: str, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        """Call the real image service, with the deadline and the metadata of the caller."""
        remaining = context.time_remaining()
        answers: AsyncIterator[bytes] = self._channel.stream_stream(method)(
            requests,
            timeout=remaining if remaining is not None and remaining < _FOR_EVER else None,
            metadata=[
                (key, value)
                for key, value in context.invocation_metadata()
                if not key.startswith(_OWN_METADATA) and key not in _OF_THE_HOP
            ],
        )
        return answers


_Forward = Callable[[str, AsyncIterator[bytes], grpc.aio.ServicerContext], AsyncIterator[bytes]]


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods of the image service; gRPC answers UNIMPLEMENTED for others."""

    def __init__(self, forward: _Forward, watch: PullWatch) -> None:
        self._forward = forward
        self._watch = watch

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        if not method.startswith(SERVICE):
            return None
        watched = {"PullImage": self._watch.pull, "RemoveImage": self._watch.remove}
        watch = watched.get(method.removeprefix(SERVICE))

        async def answer(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            try:
                if watch is None:
                    async for each in self._forward(method, requests, context):
                        yield each
                    return
                request = await anext(aiter(requests), b"")
                forward = partial(self._forward, method, _only(request), context)
                async with aclosing(watch(request, forward)) as answers:
                    async for each in answers:
                        yield each
            except grpc.aio.AioRpcError as error:
                trailing = [each for each in error.trailing_metadata() or () if not each[0].startswith(":")]
                await context.abort(error.code(), error.details() or type(error).__name__, tuple(trailing))

        return grpc.stream_stream_rpc_method_handler(answer)


async def _only(request: bytes) -> AsyncIterator[bytes]:
    yield request
