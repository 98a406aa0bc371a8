"""The fields of which clients are made, and the clients."""

from __future__ import annotations

from typing import Any

from konko_async.integrations._clients import Clients, missing

try:
    from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, PrivateAttr
except ImportError as error:  # pragma: no cover - said in words
    missing("llama-index", error)

from konko_async import AsyncKonko, RateLimit, Timeout
from konko_async.blocking import Konko as BlockingKonko

__all__ = ["LlamaIndexConnection"]


class LlamaIndexConnection(BaseModel):
    """Where calls go, and within which limits."""

    # Errors do not show what was given, which may be a key.
    model_config = ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True)

    konko_api_key: str | None = Field(default=None, exclude=True, repr=False)
    """The key; else the environment's ``KONKO_API_KEY``."""
    openai_api_key: str | None = Field(default=None, exclude=True, repr=False)
    """For OpenAI models that Konko proxies."""
    api_base: str | None = None
    """Where calls go; else ``KONKO_BASE_URL``, ``KONKO_API_BASE``, then Konko's own."""
    max_retries: int = Field(default=2, ge=0)
    """Attempts after the first one."""
    timeout: float | Timeout | None = Field(default=None, exclude=True)
    """Deadlines: a number is the total in seconds. Default: those of AsyncKonko."""
    rate_limit: RateLimit | None = Field(default=None, exclude=True)
    """What may be asked of the server. Asynchronous and blocking calls are counted apart."""
    client_options: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    """Further arguments of AsyncKonko, such as ``observers`` or ``fallback_models``."""
    async_client: AsyncKonko | None = Field(default=None, exclude=True, repr=False)
    """A client for asynchronous calls, instead of one that is made; its maker closes it."""
    client: BlockingKonko | None = Field(default=None, exclude=True, repr=False)
    """A client for calls that block, instead of one that is made."""

    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Prepare the clients, and check the options.

        Raises:
            ConfigurationError: no key, or an option that cannot be used.
        """
        super().model_post_init(context)
        given: dict[str, Any] = {
            "api_key": self.konko_api_key,
            "openai_api_key": self.openai_api_key,
            "base_url": self.api_base,
            "timeout": self.timeout,
            "max_retries": self.max_retries,
            "rate_limit": self.rate_limit,
        }
        options = {name: value for name, value in given.items() if value is not None}
        options |= self.client_options
        self._clients = Clients(options, self.async_client, self.client)

    def close(self) -> None:
        """Close the client of blocking calls; not needed at the end of a program."""
        self._clients.close()

    async def aclose(self) -> None:
        """Close the clients that were made for this object, here and for blocking calls."""
        await self._clients.aclose()
