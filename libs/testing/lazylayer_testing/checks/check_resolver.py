"""Checks of an installed resolver that need not know its images, for `lazylayer plugins check`.

The whole kit is `lazylayer_testing.resolver`, for which a plugin's author provides a shelf.
"""

from __future__ import annotations

import pytest

from lazylayer.api.oci import Descriptor, MediaType, Platform, Reference, sha256_digest
from lazylayer.errors import ResolveError
from lazylayer.plugin.hooks import Hooks
from lazylayer_testing.checks.plugin import ConfiguredPlugin

_OTHER = Reference("image", scheme="unknown-scheme", tag="1")


class TestResolver(ConfiguredPlugin):
    """Asks the plugin, with the options that are configured."""

    def test_other_kinds_of_images_are_no_answer(self, hooks: Hooks) -> None:
        """A reference of another kind is left to other plugins."""
        with pytest.raises(ResolveError, match="no plugin takes"):
            hooks.resolve_image(_OTHER, Platform.of_this_machine())

    def test_other_kinds_of_blobs_are_no_answer(self, hooks: Hooks) -> None:
        """The same for a blob."""
        with pytest.raises(ResolveError, match="no plugin takes"):
            hooks.resolve_blob(_OTHER, Descriptor(MediaType.OCI_LAYER, sha256_digest(b""), 10))
