"""Rate limits by strict sliding windows: no stretch of that length ever exceeds the limit."""

import math
from collections import deque


class SlidingWindow:
    """Sums amounts over the last `length` seconds; the caller supplies the time."""

    __slots__ = ("_entries", "_used")

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int]] = deque()
        self._used = 0

    def used(self, now: float, length: float) -> int:
        """The amount used since `now - length`."""
        entries = self._entries
        while entries and entries[0][0] <= now - length:
            self._used -= entries.popleft()[1]
        return self._used

    def wait(self, amount: int, limit: int, now: float, length: float) -> float:
        """Seconds until `amount` more is within the limit: 0 for at once, infinity for never."""
        # Strict, where real servers often use token buckets: a client that keeps within this window
        # never exceeds a bucket of the same limit.
        missing = self.used(now, length) + amount - limit
        if missing <= 0:
            return 0.0
        # Oldest first: that is the order in which entries leave the window and make room.
        for at, spent in self._entries:
            missing -= spent
            if missing <= 0:
                return max(length - (now - at), 0.0)
        # The request alone exceeds the limit: no wait helps, and the caller has to say so.
        return math.inf

    def reset(self, now: float, length: float) -> float:
        """Seconds until nothing is left in the window."""
        # In this order a window that has just begun is its whole length: at + length is rounded.
        return max(length - (now - self._entries[-1][0]), 0.0) if self._entries else 0.0

    def add(self, amount: int, now: float) -> None:
        """Count `amount` as of now."""
        self._entries.append((now, amount))
        self._used += amount


class SlidingLimits:
    """The requests and the tokens of one key and model."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests = SlidingWindow()
        self.tokens = SlidingWindow()

    def admit(
        self,
        now: float,
        length: float,
        requests_limit: int | None,
        tokens_limit: int | None,
        tokens: int,
    ) -> tuple[float, str]:
        """Count one request if both limits allow it; a refused one is not counted.

        Returns:
            The seconds to wait (0: it was admitted) and the limit that is in the way.
        """
        wait, limit = 0.0, "requests"
        if requests_limit is not None:
            wait = self.requests.wait(1, requests_limit, now, length)
        if tokens_limit is not None:
            for_tokens = self.tokens.wait(tokens, tokens_limit, now, length)
            if for_tokens > wait:
                wait, limit = for_tokens, "tokens"
        # Both or none: a call that one limit refuses must not use up the other.
        if not wait:
            # What has no limit is not counted: nothing would ever take it out again.
            if requests_limit is not None:
                self.requests.add(1, now)
            if tokens_limit is not None:
                self.tokens.add(tokens, now)
        return wait, limit

    def headers(
        self, now: float, length: float, requests_limit: int | None, tokens_limit: int | None
    ) -> dict[str, str]:
        """The `x-ratelimit-*` headers of an answer that is sent now."""
        found = {}
        kinds = (
            ("requests", self.requests, requests_limit),
            ("tokens", self.tokens, tokens_limit),
        )
        for name, window, limit in kinds:
            if limit is not None:
                left = max(limit - window.used(now, length), 0)
                found[f"x-ratelimit-limit-{name}"] = str(limit)
                found[f"x-ratelimit-remaining-{name}"] = str(left)
                found[f"x-ratelimit-reset-{name}"] = duration(window.reset(now, length))
        return found


def retry_headers(wait: float) -> dict[str, str]:
    """`retry-after` in whole seconds and `retry-after-ms` in milliseconds, both rounded up."""
    # Rounded up, as a client that comes back early would be refused again. OpenAI sends the second
    # one; the standard header knows only whole seconds.
    return {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}


def duration(seconds: float) -> str:
    """A duration as these servers write it, rounded up: `17ms`, `59.977s`, `6m0s`, `1h2m3s`."""
    # Go's format for durations, in which OpenAI and Groq write `x-ratelimit-reset-*`.
    milliseconds = math.ceil(seconds * 1000)
    if not milliseconds // 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:g}s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
