"""The models that the emulator lists: those of Konko's documentation."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

Model = dict[str, Any]

_LLAMA_2: Final = "Llama 2 Community License"
_LLAMA_2_URL: Final = "https://ai.meta.com/llama/license/"
_APACHE: Final = "Apache 2.0"
_APACHE_URL: Final = "https://www.apache.org/licenses/LICENSE-2.0"


def _model(
    id: str,
    created: int,
    *,
    kind: str,
    creator: str,
    context: int,
    prices: tuple[str, str],
    category: str = "Generalist",
    licence: tuple[str, str] = (_LLAMA_2, _LLAMA_2_URL),
) -> Model:
    owner, name = id.split("/")
    return {
        "id": id,
        "created": created,
        "object": "model",
        "owned_by": creator,
        "is_chat": kind == "chat",
        "is_text": kind == "text",
        "creator": creator,
        "creator_logo_url": f"https://docs.konko.ai/images/creators/{creator.lower()}.png",
        "name": name,
        "description": "WIP",
        "category": category,
        "censorship": "Censored",
        "max_context_length": context,
        "license_name": licence[0],
        "license_url": licence[1],
        "public_endpoint_pricing": f"{prices[0]} / 1k tokens",
        "private_endpoint_pricing": f"{prices[1]} / hour",
        "docs_url": f"https://huggingface.co/{id}",
        "prompt_guide_url": f"https://docs.konko.ai/prompting/{owner}",
    }


_CODE: Final = "Coding: Generalist"

DEFAULT_MODELS: Final[tuple[Model, ...]] = (
    _model(
        "codellama/codellama-13b-instruct",
        1702453635,
        kind="chat",
        creator="Meta",
        context=8192,
        prices=("$0.0003", "$2"),
        category=_CODE,
    ),
    _model(
        "phind/phind-codellama-34b-v2",
        1702496623,
        kind="text",
        creator="Phind",
        context=16384,
        prices=("$0.0008", "$2.8"),
        category=_CODE,
    ),
    _model(
        "nousresearch/nous-hermes-llama2-13b",
        1702453635,
        kind="chat",
        creator="NousResearch",
        context=4096,
        prices=("$0.0003", "$2"),
    ),
    _model(
        "mistralai/Mistral-7B-Instruct-v0.1",
        1702453635,
        kind="chat",
        creator="MistralAI",
        context=8192,
        prices=("$0.0002", "$1.5"),
        licence=(_APACHE, _APACHE_URL),
    ),
    _model(
        "meta-llama/llama-2-13b",
        1702453635,
        kind="text",
        creator="Meta",
        context=4096,
        prices=("$0.0003", "$2"),
    ),
    _model(
        "meta-llama/llama-2-13b-chat",
        1702453635,
        kind="chat",
        creator="Meta",
        context=4096,
        prices=("$0.0003", "$2"),
    ),
    _model(
        "thenlper/gte-base",
        1702496623,
        kind="embedding",
        creator="Thenlper",
        context=8192,
        prices=("$0.0001", "$1"),
        category="Embedding",
        licence=("MIT", "https://opensource.org/license/mit"),
    ),
)


def catalog(models: Iterable[str | Mapping[str, Any]] | None) -> dict[str, Model]:
    """The models by id, in the order given.

    Args:
        models: Ids (then only the fields that every server sends are given), or mappings with an
            `id` and whatever other fields; `None` for the models of Konko's documentation.

    Raises:
        ValueError: If a mapping has no `id`.
    """
    found: dict[str, Model] = {}
    for model in DEFAULT_MODELS if models is None else models:
        fields = {"id": model} if isinstance(model, str) else dict(model)
        if not isinstance(fields.get("id"), str) or not fields["id"]:
            raise ValueError(f"a model of the emulator needs an 'id', which is a string: {fields}")
        # A fixed time: the list has to be the same in each run.
        basic = {"created": 1700000000, "object": "model", "owned_by": "emulator"}
        found[fields["id"]] = fields if fields.keys() >= basic.keys() else {**basic, **fields}
    return found
