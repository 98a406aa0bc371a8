"""Starts the commands of tests by forking a process that has imported the command line.

Tests run `python -m konko_async` some 400 times, and programs that use the package 150 times; most
of the CPU of each would go into imports. After `install`, `subprocess.Popen`, on which asyncio's
subprocesses stand too, hands these commands, and programs that begin with `PROGRAM`, to a server: a
process that has made the imports, and has neither threads nor event loops. It forks a child per
command, which takes over the arguments, environment, folder, terminal and descriptors of the
command, and runs the package or the program as an interpreter does. The rest is the system's, as
ever: the command is a process and a child of the one that started it, with its pid, exit code,
signals, pipes, terminal.

A new interpreter is started for a command with other options of Popen than those, or with settings
that an interpreter reads when it starts (`PYTHON...`, the locale) other than `settings`; and for all
commands with `KONKO_FORK=0`, or where coverage is measured.

The workers of pytest-xdist come in the same way from a server that has collected the tests, see
`fork_workers`: what they import is imported once, and after a fresh checkout compiled once.
"""

import atexit
import builtins
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import inspect
import io
import os
import pickle
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import warnings
from pathlib import Path

COMMAND = (sys.executable, "-m", "konko_async")
# In front of a file, `-m` and a module, or `-c` and a program. To an interpreter it means nothing.
PROGRAM = (sys.executable, "-X", "konko_fork")
# Before a command: makes the terminal on its standard input the controlling one, for Ctrl-C.
_TAKE = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
TAKE_TERMINAL = (sys.executable, "-S", "-c", _TAKE)
# What execnet starts for each worker of xdist.
WORKER = (sys.executable, "-u", "-c", "import sys;exec(eval(sys.stdin.readline()))")
_SET_CHILD_SUBREAPER = 36  # of prctl(2)
_LONGEST = 1 << 20  # bytes of a request: arguments and environment
# What is read when an interpreter starts, or, of certificates, when aiohttp is imported.
_UNBUFFERED = "PYTHONUNBUFFERED"  # the only one that need not be as in `settings`
_READ_AT_START = ("PYTHON", "LC_", "LANG", "SSL_CERT_")
# Parts of names of modules which import matplotlib, and with it numpy, which starts threads.
_DRAWING = ("plot", "bulk.report")
# What commands import as they run.
_LATER = ("konko_async._client", "uvloop", "encodings.idna", "stringprep", "click._textwrap")
# What programs of tests import, where it is installed.
_OF_PROGRAMS = ("konko_async.batch", "konko_async.bench", "konko_async.local", "konko_async.relay",
    "konko_async.relay.starlette_app", "konko_async.testing", "fastapi", "uvicorn",
    "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto")  # fmt: skip
# What Popen passes on if nothing else is asked for; of the other arguments, the server knows all.
_DEFAULTS = {"executable": None, "preexec_fn": None, "close_fds": True, "pass_fds": (),
    "startupinfo": None, "creationflags": 0, "shell": False, "restore_signals": True, "gid": None,
    "gids": None, "uid": None, "umask": -1, "start_new_session": False, "process_group": -1}  # fmt: skip
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def install():
    """Let this process start commands through a server; it begins with the first of them."""
    if _may_fork():
        _servers[:] = [(_is_command, _Server(settings()))]
        subprocess.Popen._execute_child = _execute_child


def fork_workers(arguments):
    """Let the workers of xdist be forked from a process that has imported what they will.

    Args:
        arguments: of pytest, which say what is collected.
    """
    if _may_fork():
        _servers.append((_is_worker, _Server(_read_at_start(os.environ), arguments)))


def _may_fork():
    covered = {"COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"} & set(os.environ)
    return sys.platform == "linux" and os.environ.get("KONKO_FORK") != "0" and not covered


# Which commands they are for, and the servers.
_servers = []
_new_interpreter = subprocess.Popen._execute_child
_signature = inspect.signature(_new_interpreter)


def _is_command(arguments):
    return tuple(arguments[:3]) in {COMMAND, PROGRAM}


def _is_worker(arguments):
    return tuple(arguments) == WORKER


def _execute_child(popen, *given):
    """Popen's method that makes the process, with the servers in front of it."""
    options = _signature.bind(popen, *given).arguments
    arguments = options["args"] if isinstance(options["args"], list | tuple) else ()
    on_terminal = tuple(arguments[:4]) == TAKE_TERMINAL
    arguments = arguments[4:] if on_terminal else arguments
    server = next((server for serves, server in _servers if serves(arguments)), None)
    if server and all(options[name] == value for name, value in _DEFAULTS.items()):
        environment = os.environ if options["env"] is None else options["env"]
        ends = [options["p2cread"], options["c2pwrite"], options["errwrite"]]
        popen.pid = server.start(
            [own if end == -1 else end for own, end in enumerate(ends)],
            [os.fsdecode(argument) for argument in arguments[1:]],
            {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
            os.path.abspath(options["cwd"] or "."),  # noqa: PTH100 - bytes, too
            on_terminal,
        )
        if popen.pid is not None:
            popen._child_created = True
            popen._close_pipe_fds(*(options[name] for name in _PIPES))
            return
    _new_interpreter(popen, *given)


def settings():
    """The variables that are read at the start of the commands which the server makes."""
    names = ("LANG", "LC_ALL", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR")  # see conftest.py
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "PYTHONWARNINGS": "default", "PYTHONUTF8": "1"}


def environment():
    """The environment of this process, with the settings of the commands which the server makes."""
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(_READ_AT_START)}
    return kept | settings()


def _read_at_start(environment):
    read = {name: environment[name] for name in environment if name.startswith(_READ_AT_START)}
    read.pop(_UNBUFFERED, None)
    return read


class _Server:
    """A process that forks others.

    Args:
        settings: the variables, of those that are read at the start, of the processes it forks.
        tests: arguments of pytest, to collect tests; without them, it imports the command line.
    """

    def __init__(self, settings, tests=None):
        # Made before any test, so that none seems to leave it behind.
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        self._lock = threading.Lock()
        self._settings = settings
        self._tests = [] if tests is None else ["tests", *tests]
        self._process = None
        atexit.register(self._end)

    def start(self, descriptors, arguments, environment, folder, on_terminal):
        """Start a command; returns its pid, or None if it needs an interpreter of its own."""
        if _read_at_start(environment) != self._settings:
            return None
        with self._lock:
            if self._process is None:
                self._begin(environment)
            request = pickle.dumps((arguments, environment, folder, on_terminal))
            # The command becomes our child when the process between it and the server ends.
            prctl = ctypes.CDLL(None).prctl
            prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._socket, [request], descriptors)
                return int(self._socket.recv(_LONGEST)) or None
            finally:
                prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _begin(self, environment):
        end = self._theirs.fileno()
        command = (sys.executable, __file__, str(end), *self._tests)
        self._process = subprocess.Popen(
            command, env=environment, pass_fds=[end], stdin=subprocess.DEVNULL
        )
        self._theirs.close()

    def _end(self):
        for end in (self._socket, self._theirs):  # that is what ends the server
            end.close()
        if self._process is not None:
            self._process.wait()


def main():
    """Serve until the tests end, or return what a child is to run, in the child."""
    if sys.argv[2:]:
        _collect(sys.argv[3:])
    else:
        _import_the_command_line()
    # A fork would lose the threads that a module starts.
    alone = len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - their number is enough
    assert alone or sys.argv[2:], "a module of the command line starts a thread"
    gc.collect()
    gc.freeze()  # children collect nothing of it, and share its memory
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is for the commands
    while True:
        request, descriptors, *_ = socket.recv_fds(control, _LONGEST, 3)
        if not request:
            sys.exit()
        if not alone:
            control.send(b"0")
            continue
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                control.detach()
                return _become(descriptors, *pickle.loads(request))  # noqa: S301 - of our own tests
            os.write(writing, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        control.send(os.read(reading, 32))
        for descriptor in (reading, writing, *descriptors):
            os.close(descriptor)


def _import_the_command_line():
    with warnings.catch_warnings():
        # Commands would show a warning where no test sees it: in the output of the server.
        warnings.simplefilter("error")
        package = importlib.import_module("konko_async.cli")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(word in module.name for word in _DRAWING):
                importlib.import_module(module.name)
        for name in _LATER:
            importlib.import_module(name)
        for name in _OF_PROGRAMS:
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)


def _collect(tests):
    """Collect tests, so that all modules are imported as pytest does; what is wrong workers say."""
    import pytest

    os.environ["KONKO_FORK"] = "0"  # each worker starts servers of its own
    said = [os.dup(1), os.dup(2)]
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a name, not a path
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
        pytest.main(["--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider", *tests])
    for number, copy in enumerate(said, 1):
        os.dup2(copy, number)
        os.close(copy)


def _become(descriptors, arguments, environment, folder, on_terminal):
    if on_terminal:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if on_terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    unbuffered = bool(environment.get(_UNBUFFERED)) or arguments[0] == "-u"
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = _stream(number, getattr(sys, name), unbuffered=unbuffered and number > 0)
        setattr(sys, name, stream)
        # Else its end comes early enough for 3.13 to report a pipe that nobody reads any more.
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.orig_argv = [sys.executable, *arguments]
    return _program(arguments, folder)


def _program(arguments, folder):
    """Read the command line as an interpreter does; returns what is to be run."""
    if arguments[0] == "-u":  # its streams are so already
        arguments = arguments[1:]
    while arguments[0] in {"-W", "-X"}:
        option, value, *arguments = arguments
        if option == "-W":
            sys.warnoptions.append(value)
            warnings.simplefilter(value)
    kind, *rest = arguments
    if kind == "-m":
        sys.path[0], sys.argv = folder, rest
        return functools.partial(_run_module, rest[0])
    if kind == "-c":
        sys.path[0], sys.argv = "", ["-c", *rest[1:]]
        return functools.partial(_run_source, rest[0], "<string>", {})
    path = Path(folder, kind)
    sys.path[0], sys.argv = str(path.parent), arguments
    return functools.partial(_run_source, path.read_bytes(), kind, {"__file__": kind})


def _run_module(name):
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_source(source, name, more):
    names = vars(sys.modules["__main__"])
    names.clear()
    names.update(
        __name__="__main__", __builtins__=builtins, __spec__=None, __package__=None, **more
    )
    exec(compile(source, name, "exec"), names)  # noqa: S102 - what an interpreter does


def _stream(number, model, *, unbuffered):
    """What an interpreter makes of a standard descriptor when it starts."""
    unbuffered = unbuffered or model.write_through
    options = {"buffering": 0} if unbuffered else {}
    return io.TextIOWrapper(
        open(number, "wb" if number else "rb", closefd=False, **options),
        encoding=model.encoding,
        errors=model.errors,
        newline="\n",
        line_buffering=not unbuffered and (number == 2 or os.isatty(number)),
        write_through=unbuffered,
    )


if __name__ == "__main__":
    # By another name: a program takes the place of this module. Not within `main`: it ends as a
    # program does, with all that an interpreter does then.
    importlib.import_module("command_server").main()()
