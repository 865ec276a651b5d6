"""Remember the credentials of pulls while they run, and forget those of removed images.

Credentials are remembered before a pull is forwarded, since its layers are mounted in the middle of it.
A pull that fails restores what was known before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import msgspec
from loguru import logger

from lazylayer.api.oci import parse_reference
from lazylayer.errors import FormatError, InvalidReferenceError
from lazylayer_keychain_cri.messages import AuthConfig, PullImageRequest, PullImageResponse, RemoveImageRequest
from lazylayer_keychain_cri.remembered import Remembered, RememberedCredentials, StoreError, reference_key
from lazylayer_logins.dockerconfig import AuthEntry
from lazylayer_wire import DecodeError

__all__ = ["PullWatch"]

Forward = Callable[[], AsyncIterator[bytes]]


class PullWatch:
    """Reads pulls and removals as they pass through. Files are read and written in worker threads."""

    def __init__(self, store: RememberedCredentials) -> None:
        self._store = store

    async def pull(self, request: bytes, forward: Forward) -> AsyncGenerator[bytes, None]:
        """Yield the answers to PullImage; remember its credentials while it runs, and afterwards if it worked.

        :param forward: sends the request on, and returns the answers.
        """
        entry = _read_pull(request)
        if entry is None:
            async for answer in forward():
                yield answer
            return
        before = await asyncio.to_thread(self._remember, entry)
        worked = False
        try:
            async for answer in forward():
                worked = True
                await asyncio.to_thread(self._pulled, entry, answer)
                yield answer
        finally:
            if not worked:
                # Also if the caller cancels the pull.
                await asyncio.shield(asyncio.to_thread(self._restore, entry, before))

    async def remove(self, request: bytes, forward: Forward) -> AsyncGenerator[bytes, None]:
        """Yield the answers to RemoveImage; forget the credentials of the image if it worked."""
        async for answer in forward():
            yield answer
        await asyncio.to_thread(self._forget, request)

    def _remember(self, entry: Remembered) -> Remembered | None:
        """Remember a pull, and return what was remembered before."""
        try:
            before = self._store.get(entry.reference)
        except StoreError:
            before = None
        self._put(entry)
        return before

    def _pulled(self, entry: Remembered, answer: bytes) -> None:
        """Note which image a pull gave."""
        try:
            image = PullImageResponse.decode(answer).image_ref
        except DecodeError:
            image = ""
        self._put(msgspec.structs.replace(entry, image=image))
        logger.info("{reference} was pulled; its credentials are remembered", reference=entry.reference)

    def _restore(self, entry: Remembered, before: Remembered | None) -> None:
        """Undo `_remember`."""
        try:
            if before is not None:
                self._store.put(before)
            else:
                self._store.forget(entry.reference)
        except OSError as error:
            logger.warning("{reference}: {error}", reference=entry.reference, error=str(error))

    def _forget(self, request: bytes) -> None:
        """Forget the credentials of an image that was removed by reference or by ID."""
        try:
            image = RemoveImageRequest.decode(request).image.image
            dropped = sum(self._store.forget(name) for name in {image, _canonical(image)} if name)
        except (DecodeError, OSError) as error:
            logger.warning("cannot forget the credentials of a removed image: {error}", error=str(error))
            return
        if dropped:
            logger.info("{image} was removed, and its credentials with it", image=image)

    def _put(self, entry: Remembered) -> None:
        try:
            self._store.put(entry)
        except OSError as error:
            # The pull goes on: the image service has the credentials, only lazylayer has not.
            logger.error(
                "{reference}: cannot remember its credentials: {error}", reference=entry.reference, error=str(error)
            )


def _read_pull(request: bytes) -> Remembered | None:
    """Return what to remember of a PullImage; None if it has no credentials, or is not understood."""
    try:
        pull = PullImageRequest.decode(request)
        return _entry_of(pull.image.image, pull.auth)
    except (DecodeError, FormatError, InvalidReferenceError) as error:
        logger.warning("cannot remember the credentials of a pull: {error}", error=str(error))
        return None


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
    """Return the full reference, or an empty string if `image` is an ID."""
    try:
        return reference_key(parse_reference(image))
    except InvalidReferenceError:
        return ""
