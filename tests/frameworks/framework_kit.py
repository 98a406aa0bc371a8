"""What the tests of frameworks share."""

import asyncio
import contextlib
import threading

from konko_async.testing import Emulator, answer_from_prompt

MODEL = "codellama/codellama-13b-instruct"
KEY = "sk-test-0123456789"


@contextlib.contextmanager
def emulating(**options):
    """The emulator on a loop in a thread of its own; gives it, and what runs coroutines there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    server = Emulator(**{"answer": answer_from_prompt, **options})
    run(server.start())
    try:
        yield server, run
    finally:
        run(server.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def until(condition):
    """Wait until something that another task or thread does has happened."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
