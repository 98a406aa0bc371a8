"""A command that command_server.py has forked is what one with an interpreter of its own is."""

import os
import stat
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from cli_kit import command, environment, join_waiters
from command_server import COMMAND

# The server forks no command with an option of the interpreter; this one changes nothing else.
FRESH = (sys.executable, "-b", "-m", "konko_async")
_OF_LIBC = 0b11 << 31  # signals 32 and 33: the C library's own, for threads
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is compared is in /proc")


def kinds_of_descriptors(process):
    """The numbers of what a process has open, and whether each is a pipe, a socket, a file."""
    folder = Path(f"/proc/{process}/fd")
    return sorted((int(path.name), stat.S_IFMT(path.stat().st_mode)) for path in folder.iterdir())


async def look(executable):
    """What the system says of a command that serves, and its exit code after SIGTERM."""
    async with command("serve", "--port", "0", env=environment(), executable=executable) as server:
        await server.wait_for("http://")
        process = server.process.pid
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
        )
        found = [status[name].strip() for name in ("PPid", "Threads", "Umask", "NoNewPrivs")]
        found += [int(status[name], 16) & ~_OF_LIBC for name in ("SigBlk", "SigIgn", "SigCgt")]
        found += [os.getpgid(process), os.getsid(process), Path(f"/proc/{process}/cwd").readlink()]
        found += [kinds_of_descriptors(process)]
        server.process.terminate()
        ended = await server.finish()
    return found, ended.code, ended.err


async def test_the_system_sees_no_difference():
    forked, fresh = [await look(executable) for executable in (COMMAND, FRESH)]
    join_waiters()
    assert forked == fresh
    assert forked[0][0] == str(os.getpid())
