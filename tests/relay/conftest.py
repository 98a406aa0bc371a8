"""The client and its servers share a loop here: on its clock, only waiting takes time."""

from steady_loop import SteadyLoop


def pytest_asyncio_loop_factories(config, item):
    return {"steady": SteadyLoop}
