"""What the answers used that came before a row's last: steps, and those that did not fit."""

from __future__ import annotations

from typing import Any

import msgspec

from konko_async.batch._output.answers import Used, read_usage

__all__ = ["AskedBefore", "read_asked"]


class AskedBefore(msgspec.Struct, gc=False):
    """The answers before the one that counts.

    Attributes:
        calls: how many they were.
        prompt_tokens: of all of them, as far as the server reported it.
        completion_tokens: of all of them.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def after(
        cls, before: AskedBefore | None, usage: Any, more: AskedBefore | None = None
    ) -> AskedBefore:
        """Return the sums with one more, and with those before that one."""
        used = read_usage(usage)
        one = cls(1, used.prompt_tokens, used.completion_tokens)
        return cls.joined(cls.joined(before, one), more) or one

    @classmethod
    def joined(cls, one: AskedBefore | None, other: AskedBefore | None) -> AskedBefore | None:
        """Return the sums of both; None if there is neither."""
        if one is None or other is None or not one.calls or not other.calls:
            return one if one is not None and one.calls else other
        return cls(
            one.calls + other.calls,
            one.prompt_tokens + other.prompt_tokens,
            one.completion_tokens + other.completion_tokens,
        )

    def add_to(self, used: Used) -> None:
        """Add them to what a row used."""
        used.prompt_tokens += self.prompt_tokens
        used.completion_tokens += self.completion_tokens

    def usage_with(self, usage: Any) -> dict[str, int]:
        """Return the usage of all of them and one more."""
        used = read_usage(usage)
        self.add_to(used)
        return {
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "total_tokens": used.prompt_tokens + used.completion_tokens,
        }

    def shown(self) -> dict[str, int]:
        """Return them as a line of the output has them."""
        return dict(msgspec.structs.asdict(self))


def read_asked(response: dict[str, Any], used: Used) -> None:
    """Add to what a row used what its line says of the answers before."""
    found = response.get("before")
    if isinstance(found, dict):
        try:
            msgspec.convert(found, AskedBefore).add_to(used)
        except msgspec.ValidationError:
            return
