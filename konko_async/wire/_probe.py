"""Probes answers for fields that this package has no name for.

msgspec drops unknown fields while it decodes. A second look at the same JSON, one C call that keeps
nothing, says whether there were any. Only then is an answer read the long way, field by field
(:mod:`konko_async.wire._lenient`), which keeps them.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Union

import msgspec

from konko_async.wire._base import Wire

__all__ = ["IGNORED", "holds_unknown", "prober", "probers"]

# What servers send with every answer although it says nothing: not worth the long way.
_Nothing = Annotated[list[None], msgspec.Meta(max_length=0)] | None
_SAYS_NOTHING: dict[str, dict[str, Any]] = {
    # OpenAI's random padding against attacks that measure lengths.
    "ChatCompletionChunk": {"obfuscation": Any, "prompt_token_ids": None},
    "ChatCompletion": {  # vLLM
        "prompt_logprobs": None, "prompt_token_ids": None, "kv_transfer_params": None,
    },
    "Choice": {"stop_reason": None, "token_ids": None, "native_finish_reason": None},
    "ChunkChoice": {"stop_reason": None, "token_ids": None, "native_finish_reason": None},
    "ChatCompletionMessage": {"annotations": _Nothing, "audio": _Nothing},
    "ChoiceDelta": {"annotations": _Nothing, "audio": _Nothing},
}  # fmt: skip
# Texts that may be long, and are skipped; those of chunks are short, and quicker as Any.
_LONG = {"ChatCompletionMessage": frozenset({"content", "reasoning", "reasoning_content"})}
_SCALARS = frozenset({str, int, float, bool, type(None)})
IGNORED = frozenset({"obfuscation"})
"""Fields that are padding, and kept nowhere but in ``.raw``."""


@functools.cache
def holds_unknown(kind: Any) -> bool:
    """Whether a type is, or holds, a struct that keeps unknown fields."""
    if isinstance(kind, type) and issubclass(kind, Wire):
        return kind.keeps_unknown
    return any(map(holds_unknown, typing.get_args(kind)))


def prober(kind: Any) -> Callable[[Any], object]:
    """Return a function that raises msgspec's ``ValidationError`` for JSON with unknown fields.

    It may also do so for JSON that has none, which costs time and nothing else. Types that keep no
    unknown fields are not looked at.
    """
    return _decoder(_closed(kind)) if kind.keeps_unknown else _nothing


def probers(kind: Any) -> Callable[[Any], object]:
    """Return the same for a JSON array of answers."""
    return _decoder(list[_closed(kind)]) if kind.keeps_unknown else _nothing  # type: ignore[misc]  # made at run time


def _decoder(kind: Any) -> Callable[[Any], object]:
    return msgspec.json.Decoder(kind).decode


def _nothing(_body: object) -> None:
    """Stand in for a probe of a type that keeps no unknown fields."""


@functools.cache
def _closed(kind: Any) -> Any:
    """Return a twin of a struct that refuses unknown fields, and looks at no others."""
    hints = typing.get_type_hints(kind)
    long = _LONG.get(kind.__name__, ())
    known: dict[str, Any] = {
        wire_name: msgspec.Raw if name in long else _twin(hints[name])
        for name, wire_name in zip(
            kind.__struct_fields__, kind.__struct_encode_fields__, strict=True
        )
    }
    # Known fields last: a name that became a field of ours must not be taken for noise.
    fields = {**_SAYS_NOTHING.get(kind.__name__, {}), **known}
    return msgspec.defstruct(
        f"Closed{kind.__name__}",
        [
            # Numbered, as names on the wire need not be Python names.
            (f"f{number}", field, msgspec.field(default=None, name=name))
            for number, (name, field) in enumerate(fields.items())
        ],
        forbid_unknown_fields=True,
        gc=False,
    )


def _is_scalar(hint: Any) -> bool:
    return hint in _SCALARS or (
        typing.get_origin(hint) in {Union, types.UnionType}
        and all(map(_is_scalar, typing.get_args(hint)))
    )


def _twin(hint: Any) -> Any:
    if hint is type(None):
        return hint
    if not holds_unknown(hint):
        # Any is quickest for a text or a number; Raw skips what may be large: log probabilities.
        return Any if _is_scalar(hint) else msgspec.Raw
    origin = typing.get_origin(hint)
    if origin is list:
        return list[_twin(typing.get_args(hint)[0])]  # type: ignore[misc]  # made at run time
    if origin in {Union, types.UnionType}:
        return Union[tuple(map(_twin, typing.get_args(hint)))]  # noqa: UP007 - its members are a tuple
    return _closed(hint)
