"""What a chat model and embeddings share: the fields of which clients are made."""

from __future__ import annotations

from typing import Any

from konko_async.integrations._clients import Clients, missing

try:
    from langchain_core.utils import from_env, secret_from_env
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
except ImportError as error:  # pragma: no cover - said in words
    missing("langchain", error)

from konko_async import AsyncKonko, RateLimit, Timeout
from konko_async.blocking import Konko

__all__ = ["LangChainConnection"]


class LangChainConnection(BaseModel):
    """Fields that say where calls go and within which limits; LangChain's names come first."""

    # Errors do not show what was given, which may be a key.
    model_config = ConfigDict(
        arbitrary_types_allowed=True, populate_by_name=True, hide_input_in_errors=True
    )

    konko_api_key: SecretStr | None = Field(
        default_factory=secret_from_env("KONKO_API_KEY", default=None), alias="api_key"
    )
    """The key; else the environment's ``KONKO_API_KEY``."""
    konko_base_url: str | None = Field(
        default_factory=from_env(["KONKO_BASE_URL", "KONKO_API_BASE"], default=None),
        alias="base_url",
    )
    """Where calls go; else ``KONKO_BASE_URL``, ``KONKO_API_BASE``, then Konko's own."""
    request_timeout: float | Timeout | None = Field(default=None, alias="timeout", exclude=True)
    """Deadlines: a number is the total in seconds. Default: those of AsyncKonko."""
    max_retries: int | None = None
    """Attempts after the first one. Default: 2."""
    rate_limit: RateLimit | None = Field(default=None, exclude=True)
    """What may be asked of the server. Asynchronous and blocking calls are counted apart."""
    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    """Sent with every request; not shown, as they may hold keys."""
    client_options: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    """Further arguments of AsyncKonko, such as ``observers`` or ``fallback_models``."""
    async_client: AsyncKonko | None = Field(default=None, exclude=True, repr=False)
    """A client for asynchronous calls, instead of one that is made; its maker closes it."""
    client: Konko | None = Field(default=None, exclude=True, repr=False)
    """A client for calls that block, instead of one that is made."""

    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Prepare the clients, and check the options.

        Raises:
            ConfigurationError: no key, or an option that cannot be used; pydantic wraps it.
        """
        super().model_post_init(context)
        self._clients = Clients(self._client_options(), self.async_client, self.client)

    def _client_options(self) -> dict[str, Any]:
        given = {
            "api_key": self.konko_api_key and self.konko_api_key.get_secret_value(),
            "base_url": self.konko_base_url,
            "timeout": self.request_timeout,
            "max_retries": self.max_retries,
            "rate_limit": self.rate_limit,
            "default_headers": self.default_headers,
        }
        return {k: v for k, v in given.items() if v is not None} | self.client_options

    def close(self) -> None:
        """Close the client of blocking calls; not needed at the end of a program."""
        self._clients.close()

    async def aclose(self) -> None:
        """Close the clients that were made for this object, here and for blocking calls."""
        await self._clients.aclose()
