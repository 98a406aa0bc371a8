"""Which calls are under way for each chat of this process, so that they can be ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from konko_async.relay._formats.base import StopReason

__all__ = ["ChatCalls", "LiveCall"]

# Seconds that a new question waits for the old call to free its slot. After that it goes ahead:
# the old call has been asked to end, and does so in its own time.
_PATIENCE = 1.0


class LiveCall:
    """One call of a chat, from before it is made until it is over.

    Attributes:
        stopped: whether it was asked to end.
    """

    __slots__ = ("_forget", "_over", "_stop", "stopped")

    def __init__(self, forget: Callable[[LiveCall], None]) -> None:
        self.stopped = False
        self._stop: Callable[[StopReason], object] | None = None
        self._forget = forget
        self._over = asyncio.Event()

    def stops_by(self, stop: Callable[[StopReason], object]) -> None:
        """Set how the call is ended, once there is something to end."""
        self._stop = stop
        # The stop came while the call was still being prepared, and found nothing to end.
        if self.stopped:
            stop("stopped")

    def stop(self) -> None:
        """End the call; its readers get the event of a stop."""
        self.stopped = True
        if self._stop is not None:
            self._stop("stopped")

    def over(self) -> None:
        """Forget the call: nothing of it is under way upstream any more. Idempotent."""
        if not self._over.is_set():
            self._over.set()
            self._forget(self)

    async def until_over(self) -> None:
        """Wait until nothing of it is under way upstream."""
        await self._over.wait()


class ChatCalls:
    """The calls of all chats: of each chat the latest continues, the others are ended."""

    __slots__ = ("_live",)

    def __init__(self) -> None:
        self._live: dict[tuple[str, str], set[LiveCall]] = {}

    async def begin(self, owner: str, key: str | None) -> LiveCall:
        """Begin a call, and end those of the same chat.

        Nobody would read them: the chat's id leads to the latest. Waits until their slots are
        free, for a second at most.

        Args:
            owner: the caller's identity.
            key: the chat's id, or None: a call of no chat.
        """
        # Nothing can ask for the end of a call that no chat's id leads to: it is not tracked.
        if key is None:
            return LiveCall(lambda _: None)
        live = self._live.setdefault((owner, key), set())
        earlier = list(live)
        for call in earlier:
            call.stop()

        def forget(call: LiveCall) -> None:
            live.discard(call)
            # A later call of the chat may have made a set of its own since: that one stays.
            if not live and self._live.get((owner, key)) is live:
                del self._live[owner, key]

        begun = LiveCall(forget)
        # Before the wait below: a question that comes meanwhile finds this call and ends it. Of
        # many questions at once, one call is left.
        live.add(begun)
        try:
            if earlier:
                async with asyncio.timeout(_PATIENCE):
                    for call in earlier:
                        await call.until_over()
        except TimeoutError:
            pass
        # Cancelled while it waited: it was never made, and later questions must not wait for it.
        except BaseException:
            begun.over()
            raise
        return begun

    def stop(self, owner: str, key: str) -> None:
        """End all calls of a chat."""
        for call in list(self._live.get((owner, key), ())):
            call.stop()
