"""What the page is told of its relay, in the list of models."""

import json

import pytest

from konko_async import AsyncKonko
from konko_async.batch import Price
from konko_async.errors import ConfigurationError
from konko_async.relay import PageOptions, RelayOptions, RelayRequest, RelayService


async def models(page, **options):
    async with AsyncKonko("k", "http://127.0.0.1:9/v1") as client:
        given = RelayOptions(models=["m"], **options)
        service = RelayService(client, given, auth="open", host="127.0.0.1", page=page)
        request = RelayRequest(
            method="GET", path="/v1/models", headers={"host": "localhost"}, body=lambda: None,
            gone=lambda: False, local="127.0.0.1",
        )  # fmt: skip
        reply = await service.handle(request)
        await service.close()
        return json.loads(reply.body)


async def test_it_is_told_only_where_there_is_a_page():
    assert "relay" not in await models(page=False)
    told = (await models(page=True, max_body=1000, max_tokens=7, params={"seed"}, parts={"text"}))[
        "relay"
    ]
    assert (told["max_body"], told["max_tokens"], told["params"]) == (1000, 7, ["seed"])
    assert (told["parts"], told["prices"], told["about"], told["starters"]) == (
        ["text"],
        {},
        None,
        None,
    )


async def test_prices_are_told_per_token():
    prices = {"m": Price(1e-6, 2e-6, cached=5e-7, currency="EUR"), "*": Price(1.0)}
    page = PageOptions(prices=prices, about="Small.", starters=[("Ask", "What?")])
    told = (await models(page=page))["relay"]
    assert told["prices"]["m"] == {
        "prompt": 1e-6,
        "completion": 2e-6,
        "cached": 5e-7,
        "currency": "EUR",
    }
    assert told["prices"]["*"]["completion"] is None
    assert (told["about"], told["starters"]) == ("Small.", [["Ask", "What?"]])


@pytest.mark.parametrize("starters", [[("a", "b", "c")], [("a", 1)], [("a", "b")] * 9, ["ab"]])
def test_starters_that_are_none(starters):
    with pytest.raises(ConfigurationError, match="starters"):
        PageOptions(starters=starters)
