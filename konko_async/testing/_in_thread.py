"""The emulator for synchronous tests: on an event loop in a thread of its own."""

import asyncio
import inspect
import threading
from collections.abc import Coroutine
from typing import Any, Self

from konko_async.testing._emulator.emulator import Emulator


class EmulatorInThread:
    """An emulator for tests that have no event loop, such as those with FastAPI's `TestClient`.

    ```python
    with EmulatorInThread(latency=0.05) as emulator:
        answer = requests.get(emulator.base_url + "/models")
    ```

    It has all attributes and methods of `Emulator`; they are run in its thread, and those that are
    coroutines there are plain functions here: `emulator.wait_until(condition)`.

    Args:
        **options: Of `Emulator`.
    """

    def __init__(self, **options: Any) -> None:
        # Not by setattr(), which sets attributes of the emulator.
        self.__dict__.update(_emulator=Emulator(**options), _loop=None, _thread=None)

    def __enter__(self) -> Self:
        loop = self.__dict__["_loop"] = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="konko_emulator", daemon=True)
        self.__dict__["_thread"] = thread
        thread.start()
        self._run(self._emulator.start())
        return self

    def __exit__(self, *_: object) -> None:
        loop = self._loop
        try:
            self._run(self._emulator.close())
            self._run(loop.shutdown_asyncgens())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()
            self.__dict__["_loop"] = None

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop = self._loop
        if loop is None:
            coroutine.close()
            raise RuntimeError("the emulator is not running: use `with`")
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._emulator, name)
        # A condition of wait_until() is called in that thread already.
        if not inspect.ismethod(value) or threading.current_thread() is self._thread:
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            async def run() -> Any:
                result = value(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            return self._run(run())

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        async def change() -> None:
            setattr(self._emulator, name, value)

        self._run(change())

    def __repr__(self) -> str:
        return repr(self._emulator)
