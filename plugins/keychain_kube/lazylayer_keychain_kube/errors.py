"""Errors of talking to the Kubernetes API; every message says what to do."""

from __future__ import annotations

__all__ = ["AccessError", "ApiError", "GoneError"]


class ApiError(Exception):
    """The API cannot be reached, refuses, or gives an invalid answer; a later attempt may work."""


class AccessError(ApiError):
    """The kubeconfig, the service account or an exec plugin does not say how to reach the API."""


class GoneError(ApiError):
    """The resource version is too old (410): list again."""
