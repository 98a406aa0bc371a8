"""A small chat for the terminal whose model may look at the files around it.

    pip install '.[cli]'
    export KONKO_API_KEY=...
    python examples/terminal.py

Without a key, `konko-async serve` in another terminal prints what to export instead; its made-up
answers call the tools, too.

Ctrl-C stops an answer and takes the question back, Ctrl-D ends the chat. No file is read before you
have said yes.

`konko-async chat` is a chat without tools and with much else; this is how to write one of your own.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from prompt_toolkit import PromptSession

from konko_async import AsyncKonko, KonkoError
from konko_async.tools import TextDelta, ToolFinished, ToolInvocation, ToolStarted

MODEL = os.environ.get("KONKO_MODEL", "codellama/codellama-13b-instruct")
HERE = Path.cwd()
LONGEST = 20_000  # characters of a file that the model gets to see
CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def now(zone: str = "UTC") -> str:
    """Tell the date and the time.

    Args:
        zone: an IANA name, such as Europe/Rome
    """
    return datetime.now(ZoneInfo(zone)).isoformat(timespec="seconds")


def list_files(pattern: str = "*") -> list[str]:
    """List files of the current folder.

    Args:
        pattern: as shells have them, such as *.py
    """
    return sorted(path.name for path in HERE.iterdir() if path.match(pattern))[:200]


def read_file(name: str) -> str:
    """Read a text file of the current folder.

    Args:
        name: the file's name, as list_files tells it
    """
    path = (HERE / name).resolve()
    if not path.is_relative_to(HERE):
        raise ValueError("only files of the current folder may be read")
    return path.read_text(errors="replace")[:LONGEST]


def show(text: str, end: str = "\n") -> None:
    """Print what comes from a model or a server, which must not steer the terminal."""
    print(text.translate(CONTROLS), end=end, flush=True)


class Chat:
    """A conversation.

    Args:
        client: asks the model.
    """

    def __init__(self, client: AsyncKonko) -> None:
        self._client = client
        self._prompt: PromptSession[str] = PromptSession()
        self._messages: list[Any] = []

    async def run(self) -> None:
        """Ask and answer until Ctrl-D."""
        while True:
            try:
                question = await self._prompt.prompt_async("> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if question.strip():
                await interruptible(self._answer(question))

    async def _answer(self, question: str) -> None:
        """Write the answer as it comes; what fails or is stopped leaves no trace."""
        run = self._client.chat.completions.run_tools(
            model=MODEL,
            messages=[*self._messages, {"role": "user", "content": question}],
            tools=[now, list_files, read_file],
            before_tool=self._allowed,
            max_rounds=8,
        )
        try:
            async with run:
                async for event in run:
                    match event:
                        case TextDelta(text):
                            show(text, end="")
                        case ToolStarted(call):
                            show(f"[{call.name} {call.text}]")
                        case ToolFinished(outcome) if outcome.status != "ok":
                            show(f"[{outcome.status}: {outcome.output}]")
                self._messages = run.result.messages
                print()
        except KonkoError as error:
            show(f"\n[{error}]")

    async def _allowed(self, call: ToolInvocation) -> bool:
        """Ask before a file's content leaves this machine."""
        if call.name != "read_file":
            return True
        text = f"let it read {call.arguments['name']!r}? [y/N] "
        try:
            # Ctrl-C while the answer goes on is ours to handle, see interruptible().
            said = await PromptSession[str]().prompt_async(text, handle_sigint=False)
        except (EOFError, KeyboardInterrupt):
            return False
        return said.strip().lower() == "y"


async def interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Await something; Ctrl-C cancels it and nothing else."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        task.cancel()
    if task.cancelled():
        print("\n[stopped]")
    else:
        task.result()


async def main() -> None:
    """Chat."""
    async with AsyncKonko() as client:
        await Chat(client).run()


if __name__ == "__main__":
    if not sys.stdin.isatty():
        sys.exit("terminal.py asks before it reads files, and so needs a terminal")
    try:
        asyncio.run(main())
    except KonkoError as error:
        sys.exit(str(error))
