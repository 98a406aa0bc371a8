"""The subprocess that runs llama.cpp's HTTP server: ``python -m konko_async.local._serve``.

Standard input carries one JSON line (the settings, with the key) and then stays open as the
life line: its end means that the parent is gone. Standard output carries one JSON line back,
``{"url": ...}`` or ``{"error": ..., "kind": ...}``. All else that is printed goes to the log.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from konko_async.local._weights import bundled_model

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until standard input ends."""
    die_with_parent()
    answer = _take_over_stdout()
    settings = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_watch_parent, daemon=True).start()
    try:
        model = settings["model_path"] or _assemble(Path(settings["cache_dir"]))
        server = start(settings, str(model))
    except Exception as error:  # noqa: BLE001 - whatever it was, the parent has to hear of it
        _say(answer, {"error": str(error), "kind": type(error).__name__})
        sys.exit(1)  # not os._exit, which would cut off what the engine has yet to log
    _say(answer, {"url": server.listening_address})
    threading.Event().wait()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start(settings: dict[str, Any], model: str) -> Any:
    """Start the HTTP server; it has loaded the model when this returns.

    Args:
        settings: As sent by the parent: ``key``, ``alias``, ``n_parallel``, ``n_ctx`` (tokens
            per slot), ``n_threads`` or None, ``chat_template`` or None, ``stop``,
            ``max_tokens``, ``temperature`` (each None for the engine's own default).
        model: Path of the GGUF file.

    Returns:
        The engine's server object; it serves for as long as it is referenced.

    Raises:
        RuntimeError: The engine could not load the model; its reasons are in the log.
    """
    import xllamacpp  # noqa: PLC0415 - 100 MB of native code, loaded only in this process

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {settings["alias"]}
    params.verbosity = 2  # warnings and errors; never prompts
    _apply_security(params, settings["key"])
    _apply_capacity(params, settings)
    _apply_defaults(params, settings)
    return xllamacpp.Server(params)


def _apply_security(params: Any, key: str) -> None:
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # the kernel picks a free one, so there is no race for it
    params.reuse_port = False
    params.api_keys = [key]
    # The engine's default "*" echoes any origin back. Empty matches none; "null" would match
    # sandboxed frames and local files.
    params.cors_origins = ""
    params.cors_origins_explicit = True
    params.cors_credentials = False
    params.ui = False
    params.endpoint_slots = False  # it would show the prompts of other calls


def _apply_capacity(params: Any, settings: dict[str, Any]) -> None:
    params.n_parallel = settings["n_parallel"]
    # The engine divides the context evenly among the slots.
    params.n_ctx = settings["n_ctx"] * settings["n_parallel"]
    # Models with a sliding window drop what is older than the window, so a call that shares only
    # its worked examples with the one before would evaluate them anew: 500 tokens, not 70.
    params.swa_full = True
    # Off: it holds prompts of finished calls in up to 8 GiB, and each slot has its own cache.
    params.cache_ram_mib = 0
    if settings["n_threads"] is not None:
        params.cpuparams.n_threads = settings["n_threads"]
        params.cpuparams_batch.n_threads = settings["n_threads"]


def _apply_defaults(params: Any, settings: dict[str, Any]) -> None:
    """Set what holds for calls that do not say otherwise."""
    if settings["chat_template"] is not None:
        params.chat_template = settings["chat_template"]
        params.use_jinja = True
    if settings["stop"] is not None:
        params.antiprompt = settings["stop"]
    if settings["max_tokens"] is not None:
        params.n_predict = settings["max_tokens"]
    if settings["temperature"] is not None:
        params.sampling.temp = settings["temperature"]


def _take_over_stdout() -> int:
    """Keep the answer pipe for ourselves; what native code prints joins the log on stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    return answer


def _say(answer: int, message: dict[str, str]) -> None:
    os.write(answer, json.dumps(message).encode() + b"\n")
    os.close(answer)


def _assemble(folder: Path) -> Path:
    """Put the weights together; SIGTERM then unwinds, so that no half-written file stays."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return bundled_model(folder)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _watch_parent() -> None:
    # os.read, not sys.stdin: a buffered reader holds a lock that the interpreter's exit wants.
    while os.read(0, 4096):
        pass
    # Not sys.exit: this is a thread, and the engine's destructors may wait for clients.
    os._exit(0)


if __name__ == "__main__":
    main()
