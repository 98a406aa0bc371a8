"""Which calls are kept together, and where: consistent hashing with bounded loads. Pure.

A server that has the beginning of a prompt in its KV cache need not read it again. So calls that
begin alike go to one server, unless it is overloaded. Which one: Mirrokni, Thorup and
Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016). Keys and servers stand on a ring; a
key belongs to the first server clockwise from it that has room, where "room" is at most
a little more than its even share. The bound holds twice: for the keys that a server is given (its
cache holds only so many), and for the calls in flight there (a popular key spills over). The latter
is wider by the square root of the share, by which calls that come at random vary anyway: without
that, chance would spill calls over that find nothing cached where they go.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Final

from konko_async.wire._codec import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from konko_async._balance.node import Node
    from konko_async._core.pipeline import Request

__all__ = ["Placement", "prefix_keys"]

# Of what a text begins with: more than that is a prefix of its own.
_BEGINNING: Final = 1024
# Messages of a conversation whose ends are remembered: the latest, and the first.
_DEPTH: Final = 12
# Places on the ring per unit of weight.
_PLACES: Final = 64
_KEYS: Final = 1.1
_CALLS: Final = 1.25
# Calls in flight that are always let pass: at little load, the even share is less than one call.
_FREE: Final = 4
# Beginnings that are remembered; the least recently used are forgotten.
_REMEMBERED: Final = 16384
_ROOTS: Final = 4096


def prefix_keys(request: Request) -> list[int]:
    """Return keys of the beginnings of a request's prompt, the shortest first.

    The first is that of the first message (or its first 1024 characters), the next ones those of
    each longer beginning of the conversation, so that the turns of a chat meet again.
    """
    params = request.params
    messages = _field(params, "messages")
    if not messages:
        prompt = _field(params, "prompt")
        return (
            [_stable(f"{request.model}\n{prompt[:_BEGINNING]}")] if isinstance(prompt, str) else []
        )
    key: Any = request.model
    keys: list[int] = []
    for message in messages[:_DEPTH]:
        content = _field(message, "content")
        if not isinstance(content, str):
            content = "" if content is None else encode(content).decode()
        role = _field(message, "role")
        if not keys:
            # The same in all processes, as it stands on their rings.
            keys.append(_stable(f"{key}\n{role}\n{content[:_BEGINNING]}"))
        # Texts know their hash: to hash a long one again costs nothing.
        key = hash((key, role, content))
        keys.append(key)
    return keys


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


class Placement:
    """Remembers which endpoint has which beginnings."""

    __slots__ = ("_hashes", "_known", "_nodes", "_owners", "_roots", "_total")

    def __init__(self) -> None:
        self._hashes: list[int] = []
        self._owners: list[Node] = []
        self._nodes: Sequence[Node] = ()
        self._total = 0.0
        self._known: dict[int, Node] = {}
        # How many beginnings each endpoint was given, and which.
        self._roots: dict[int, Node] = {}

    def place(self, nodes: Sequence[Node]) -> None:
        """Use these endpoints from now on; keys of the others move to their neighbours."""
        self._nodes = tuple(nodes)
        self._total = sum(node.weight for node in nodes)
        ring = sorted(
            (_stable(f"{node.name}/{place}"), number)
            for number, node in enumerate(nodes)
            for place in range(max(1, round(_PLACES * node.weight)))
        )
        self._hashes = [key for key, _ in ring]
        self._owners = [nodes[number] for _, number in ring]
        there = set(nodes)
        self._known = {key: node for key, node in self._known.items() if node in there}
        self._roots = {key: node for key, node in self._roots.items() if node in there}

    def pick(self, keys: Sequence[int | str], usable: Callable[[Node], bool]) -> Node | None:
        """Return the endpoint of a prompt.

        Args:
            keys: of its beginnings, the shortest first.
            usable: whether an endpoint takes the call; asked last, as it is a promise.

        Returns:
            The one that has the longest of them and is not overloaded; else the next on the ring.
        """
        known = self._known
        found: Node | None = None
        for key in reversed(keys):
            found = known.get(key)  # type: ignore[arg-type]  # ids of conversations are texts
            if found is not None:
                break
        root = keys[0]
        if found is None or self._is_overloaded(found) or not usable(found):
            at = found
            found = self._walk(root, usable, new=at is None)
        if found is not None:
            self._remember(keys, found)
        return found

    def _walk(self, root: int | str, usable: Callable[[Node], bool], *, new: bool) -> Node | None:
        """Go round the ring from a key to the first endpoint that has room."""
        hashes, owners = self._hashes, self._owners
        if not hashes:
            return None
        start = bisect_right(hashes, _stable(str(root)))
        counts: dict[Node, int] = {}
        if new:
            for node in self._roots.values():
                counts[node] = counts.get(node, 0) + 1
        seen: set[Node] = set()
        for step in range(len(owners)):
            node = owners[(start + step) % len(owners)]
            if node in seen:
                continue
            seen.add(node)
            share = (len(self._roots) + 1) * node.weight / self._total
            room = counts.get(node, 0) < ceil(_KEYS * share)
            if room and not self._is_overloaded(node) and usable(node):
                return node
            if len(seen) == len(self._nodes):
                break
        return None

    def _is_overloaded(self, node: Node) -> bool:
        in_flight = node.load.in_flight
        if in_flight < _FREE:
            return False
        every = sum(one.load.in_flight for one in self._nodes) + 1
        share = every * node.weight / self._total
        return in_flight + 1 > ceil(_CALLS * share + sqrt(share))

    def _remember(self, keys: Sequence[int | str], node: Node) -> None:
        known: dict[Any, Node] = self._known
        roots: dict[Any, Node] = self._roots
        root = keys[0]
        # Taken out and put in again: dicts keep the order, so the first are the oldest.
        if roots.pop(root, None) is None and len(roots) >= _ROOTS:
            del roots[next(iter(roots))]
        # A popular key that spills over stays where it was: its calls come back with the room.
        roots[root] = known.get(root, node)
        for key in keys:
            at = known.pop(key, None)
            if at is None and len(known) >= _REMEMBERED:
                del known[next(iter(known))]
            known[key] = at if key == root and at is not None else node


def _stable(text: str) -> int:
    """Return a hash that is the same in all processes."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
