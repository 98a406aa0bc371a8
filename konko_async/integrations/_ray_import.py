"""Imports Ray with its usage reports and its open ports switched off."""

from __future__ import annotations

import os
from typing import Any

from konko_async.errors import ConfigurationError

__all__ = ["ray", "start_ray"]

# Read when it is imported. Its usage reports go to its makers.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "RAY_ADDRESS" not in os.environ:
    # A cluster that it starts by itself listens on loopback only: who may connect may run code.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

ray: Any
try:
    import ray
    import ray.data
    import ray.exceptions
except ImportError:  # pragma: no cover - said in words
    raise ConfigurationError("this needs the extra `ray`: pip install 'konko-async[ray]'") from None


def start_ray() -> None:
    """Connect to the cluster of ``RAY_ADDRESS``, or start one on this machine, if need be."""
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if "RAY_ADDRESS" not in os.environ:
        options |= {"include_dashboard": False, "address": "local"}
    ray.init(**options)
