"""Passes the CRI image service on, byte by byte, and looks at pulls and removals on the way.

Credentials are remembered before a pull is passed on, since the layers are mounted in the middle of
it; a pull that fails leaves what was known before. On the wire a unary call is a stream of one
message, so that every other method is passed on as streams, whatever its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from loguru import logger

from lazylayer.api.oci import parse_reference
from lazylayer.errors import FormatError, InvalidReferenceError
from lazylayer_keychain_cri.messages import AuthConfig, PullImageRequest, PullImageResponse, RemoveImageRequest
from lazylayer_keychain_cri.remembered import Remembered, RememberedCredentials, StoreError, reference_key
from lazylayer_logins.dockerconfig import AuthEntry
from lazylayer_wire import DecodeError

__all__ = ["SERVICE", "ImageServiceProxy"]

SERVICE = "/runtime.v1.ImageService/"
"""What the methods of the image service begin with."""

_OPTIONS = [("grpc.max_receive_message_length", 16 * 1024 * 1024), ("grpc.max_send_message_length", 16 * 1024 * 1024)]
"""As the CRI's own clients and servers have it."""
_OWN_METADATA = ("grpc-", ":")
_OF_THE_HOP = frozenset({"user-agent", "content-type", "te"})


class ImageServiceProxy:
    """Serves on one socket what another one answers.

    :param listen: the path of the socket to serve on; a socket that is left there is replaced.
    :param backend: the path of the real image service's socket; it may come and go.
    """

    def __init__(self, listen: str, backend: str, store: RememberedCredentials, threads: int = 32) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._store = store
        self._channel = grpc.insecure_channel(f"unix:{backend}", options=_OPTIONS)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cri-proxy")
        self._server = grpc.server(self._pool, handlers=[_Handlers(self)], options=_OPTIONS)
        self._server.add_insecure_port(f"unix:{listen}")

    def start(self) -> None:
        """Serves from threads of its own."""
        self._server.start()

    def close(self, grace: float = 5.0) -> None:
        """Ends; calls under way have `grace` seconds."""
        self._server.stop(grace).wait()
        self._channel.close()
        self._pool.shutdown()

    # --- calls ---------------------------------------------------------------------------------------

    def pass_on(self, method: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Any method, as streams."""
        yield from self._call(method, requests, context)

    def pull(self, method: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """PullImage: remembers its credentials while it runs, and afterwards if it worked."""
        request = next(requests, b"")
        entry = self._entry(request)
        before = self._remember(entry) if entry is not None else None
        worked = False
        try:
            for answer in self._call(method, iter([request]), context):
                worked = True
                if entry is not None:
                    self._pulled(entry, answer)
                yield answer
        finally:
            if entry is not None and not worked:
                self._restore(entry, before)

    def remove(self, method: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """RemoveImage: drops the credentials of what was removed."""
        request = next(requests, b"")
        yield from self._call(method, iter([request]), context)
        try:
            image = RemoveImageRequest.decode(request).image.image
            dropped = sum(self._store.forget(name) for name in {image, _canonical(image)} if name)
        except (DecodeError, OSError) as error:
            logger.warning("the credentials of an image that was removed are kept: {error}", error=_reason(error))
            return
        if dropped:
            logger.info("{image} was removed, and its credentials with it", image=image)

    def _call(self, method: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        remaining = context.time_remaining()
        call: Any = self._channel.stream_stream(method)(
            requests,
            timeout=remaining if remaining is not None and remaining < 1e9 else None,
            metadata=[
                (key, value)
                for key, value in context.invocation_metadata()
                if not key.startswith(_OWN_METADATA) and key not in _OF_THE_HOP
            ],
        )
        if not context.add_callback(call.cancel):
            call.cancel()
        try:
            yield from call
        except grpc.RpcError as error:
            trailing = [each for each in call.trailing_metadata() or () if not each[0].startswith(":")]
            raise _RefusedError(call.code(), call.details() or _reason(error), trailing) from error

    # --- credentials ---------------------------------------------------------------------------------

    def _entry(self, request: bytes) -> Remembered | None:
        """What is to be remembered of a pull; None for nothing, or for what we do not understand."""
        try:
            pull = PullImageRequest.decode(request)
            return _entry_of(pull.image.image, pull.auth)
        except (DecodeError, FormatError, InvalidReferenceError) as error:
            logger.warning("the credentials of a pull are not remembered: {error}", error=_reason(error))
            return None

    def _remember(self, entry: Remembered) -> Remembered | None:
        """Returns what was remembered before."""
        try:
            before = self._store.get(entry.reference)
        except StoreError:
            before = None
        self._put(entry)
        return before

    def _pulled(self, entry: Remembered, answer: bytes) -> None:
        try:
            image = PullImageResponse.decode(answer).image_ref
        except DecodeError:
            image = ""
        self._put(Remembered(**{**_fields(entry), "image": image}))
        logger.info("{reference} was pulled; its credentials are remembered", reference=entry.reference)

    def _restore(self, entry: Remembered, before: Remembered | None) -> None:
        try:
            if before is not None:
                self._store.put(before)
            else:
                self._store.forget(entry.reference)
        except OSError as error:
            logger.warning("{reference}: {error}", reference=entry.reference, error=_reason(error))

    def _put(self, entry: Remembered) -> None:
        try:
            self._store.put(entry)
        except OSError as error:
            # The pull goes on: the image service has the credentials, only we have not.
            logger.error(
                "{reference}: its credentials cannot be remembered: {error}",
                reference=entry.reference,
                error=_reason(error),
            )


class _RefusedError(Exception):
    """The real image service answered with an error."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: list[tuple[str, str | bytes]]) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailing = trailing


_Behaviour = Callable[[str, Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, proxy: ImageServiceProxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        if not method.startswith(SERVICE):
            return None
        special = {"PullImage": self._proxy.pull, "RemoveImage": self._proxy.remove}
        behaviour: _Behaviour = special.get(method.removeprefix(SERVICE), self._proxy.pass_on)

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            try:
                yield from behaviour(method, requests, context)
            except _RefusedError as refusal:
                context.set_trailing_metadata(refusal.trailing)
                context.abort(refusal.code, refusal.details)

        return grpc.stream_stream_rpc_method_handler(answer)


def _entry_of(image: str, auth: AuthConfig) -> Remembered | None:
    entry = AuthEntry(auth.username, auth.password, auth.auth, auth.identity_token, auth.registry_token)
    found = entry.credentials("")
    if found is None:
        return None
    return Remembered(
        reference=reference_key(parse_reference(image)),
        username=found.username,
        password=found.password,
        identity_token=found.identity_token,
        registry_token=found.registry_token,
        server=auth.server_address,
    )


def _canonical(image: str) -> str:
    """The reference in full, or an empty string where `image` is none, but an ID."""
    try:
        return reference_key(parse_reference(image))
    except InvalidReferenceError:
        return ""


def _fields(entry: Remembered) -> dict[str, str]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
