"""Permits: what an admitted call holds, and how it gives that back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from konko_async.limits._throttle import Charges

__all__ = ["Outcome", "Permit", "PermitOwner", "SharedPermit"]

Outcome = Literal["ok", "rejected", "error", "cancelled"]
"""How a call ended: served; turned away by the server (429, overload); failed; given up."""


class PermitOwner(Protocol):
    """What granted a permit, and gets the call's outcome: a lane, local or shared."""

    def settle(self, permit: Permit, used: int) -> None:
        """Correct the reserved tokens of a permit to ``used``."""

    def refund(self, permit: Permit) -> None:
        """Take back the request and the tokens of a call that never reached the server."""

    def release(self, permit: Permit, latency: float | None, outcome: Outcome) -> None:
        """Free the concurrency slot of a permit."""


class Permit(msgspec.Struct, eq=False):
    """The right to send one call: a slot, one request of the window, and reserved tokens.

    The slot is freed by :meth:`release`, the tokens are corrected by :meth:`settle`; both once,
    in any order, from whatever ends the call. A permit that is released and never settled keeps
    its estimate.

    Attributes:
        tokens: what was reserved.
        waited: seconds that the call waited.
        admitted_at: ``loop.time()`` at which it was admitted.
        in_flight: how many calls were in flight then, this one included.
        charges: where it is counted.
        era: counts the loops that its lane had; a permit of a former one frees nothing.
    """

    # A struct, as making one in C costs a tenth of the whole admission less.
    _owner: PermitOwner
    era: int
    admitted_at: float
    in_flight: int
    tokens: int
    charges: Charges
    waited: float = 0.0
    _open: bool = True
    _settled: bool = False

    def settle(self, total_tokens: int | None) -> None:
        """Correct the reserved tokens to what was used; idempotent, the first call counts.

        Args:
            total_tokens: prompt and answer together; None where the server reported none, which
                keeps the estimate, as does a figure below 1.
        """
        if self._settled:
            return
        self._settled = True
        # A figure below 1 (or NaN) would be credit for all others.
        if total_tokens is not None and total_tokens != self.tokens and total_tokens >= 1:
            self._owner.settle(self, total_tokens)

    def settle_refused(self) -> None:
        """Give the tokens back and keep the request: the server refused it before a model ran.

        Idempotent; does nothing after :meth:`settle`.
        """
        if not self._settled:
            self._settled = True
            self._owner.settle(self, 0)

    def refund(self) -> None:
        """Give the request and the tokens back: nothing reached the server; idempotent.

        Does nothing after :meth:`settle`, and does not free the slot.
        """
        # Once settled, the server has reported usage: it did receive the call.
        if not self._settled:
            self._settled = True
            self._owner.refund(self)

    def release(self, latency: float | None = None, outcome: Outcome = "ok") -> None:
        """Free the slot; idempotent. Settles nothing.

        Args:
            latency: seconds the server took; by default the time since the admission. The adaptive
                limiter compares it with others, so it should mean the same for every call.
            outcome: how the call ended. Only ``ok`` and ``rejected`` teach the adaptive limiter.
        """
        if self._open:
            self._open = False
            self._owner.release(self, latency, outcome)

    def __repr__(self) -> str:
        state = "in flight" if self._open else "released"
        return f"<Permit {state}, {self.tokens} tokens, waited {self.waited:.3f} s>"


class SharedPermit(Permit):
    """A permit that a store granted.

    Attributes:
        epoch: of the store.
        slot: where it is counted there.
    """

    epoch: str = ""
    slot: int = 0
