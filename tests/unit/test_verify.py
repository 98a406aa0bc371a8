"""The model list is fetched once, and what it says is put into words."""

import asyncio

import pytest

from konko_async import APIConnectionError, ConfigurationError, Model
from konko_async._engine.model_index import ModelIndex

MODELS = [
    Model("codellama/codellama-13b-instruct", is_chat=True, is_text=False),
    Model("phind/phind-codellama-34b-v2", is_chat=False, is_text=True),
    Model("plain/no-flags"),
]


class Source:
    """A model list that counts how often it is asked for."""

    def __init__(self, models=MODELS, failures=0):
        self.models, self.failures, self.asked = models, failures, 0

    async def __call__(self):
        self.asked += 1
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise APIConnectionError("down")
        return self.models


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (MODELS[0].id, "chat"),
        (MODELS[1].id, "text"),
        (MODELS[2].id, "chat"),
        (MODELS[2].id, "text"),
    ],
)
async def test_fitting_models_pass(model, kind):
    await ModelIndex(Source()).check(model, kind)


@pytest.mark.parametrize(
    ("model", "kind", "text"),
    [
        ("codellama-13b-instruct", "chat", r"no model 'codellama-13b-instruct'; did you mean 'codellama/"),
        ("Codellama/Codellama-13B-instruct", "chat", "'codellama/codellama-13b-instruct'"),
        ("zzz", "chat", "did you mean"),
        (MODELS[1].id, "chat", r"no chat model \(is_chat is false\): use client\.completions.*'codellama/"),
        (MODELS[0].id, "text", r"no text model \(is_text is false\): use client\.chat\.completions.*'phind/"),
    ],
)  # fmt: skip
async def test_misfits_are_named_with_what_would_fit(model, kind, text):
    with pytest.raises(ConfigurationError, match=text):
        await ModelIndex(Source()).check(model, kind)


async def test_a_server_that_lists_nothing():
    with pytest.raises(ConfigurationError, match="lists no other"):
        await ModelIndex(Source([])).check("a", "chat")


async def test_the_list_is_fetched_once_however_many_ask():
    source = Source()
    index = ModelIndex(source)
    await asyncio.gather(*(index.check(MODELS[0].id, "chat") for _ in range(50)))
    await index.check(MODELS[0].id, "chat")
    assert source.asked == 1


async def test_a_failed_fetch_is_made_again_by_the_next_call():
    source = Source(failures=1)
    index = ModelIndex(source)
    with pytest.raises(APIConnectionError):
        await index.check(MODELS[0].id, "chat")
    await index.check(MODELS[0].id, "chat")
    assert source.asked == 2


async def test_a_cancelled_fetch_leaves_the_next_one_free():
    source = Source()
    index = ModelIndex(source)
    first = asyncio.ensure_future(index.check(MODELS[0].id, "chat"))
    second = asyncio.ensure_future(index.check(MODELS[0].id, "chat"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert source.asked == 2
    with pytest.raises(asyncio.CancelledError):
        await first


def test_it_serves_one_loop_after_another():
    source = Source(failures=1)
    index = ModelIndex(source)
    with pytest.raises(APIConnectionError):
        asyncio.run(index.check(MODELS[0].id, "chat"))
    asyncio.run(index.check(MODELS[0].id, "chat"))
