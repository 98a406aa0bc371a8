"""Modules that are imported when they are first used.

All tests are collected by each worker, and what only one of them runs, such as the tests of a
framework, should cost the others nothing.
"""

import importlib
import importlib.util

import pytest


class LazyModule:
    """A module that is imported when something of it is first looked up.

    Args:
        name: of the module.
    """

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        # pytest asks all that a test module has whether it is a test, a class or a mock.
        if name.startswith("__") or name == "_mock_name":
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)


def needs(package):
    """The mark of tests that are skipped without a package; looks for it without importing it."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")
