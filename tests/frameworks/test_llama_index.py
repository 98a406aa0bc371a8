"""The LLM and the embeddings of LlamaIndex, a replacement for those of llama-index-llms-konko."""

import asyncio
import gc

import pytest
from framework_kit import KEY, MODEL, emulating, until
from lazy_module import LazyModule, needs
from pydantic import BaseModel

from konko_async import AsyncKonko, RateLimit

types = LazyModule("llama_index.core.base.llms.types")
tools = LazyModule("llama_index.core.tools")
ours = LazyModule("konko_async.integrations.llama_index")

pytestmark = needs("llama_index.core")
TEXT_MODEL = "phind/phind-codellama-34b-v2"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


@pytest.fixture
def server():
    with emulating() as (found, _):
        yield found


def make(server, **options):
    return ours.Konko(MODEL, konko_api_key=KEY, api_base=server.base_url, **options)


async def test_asynchronous_calls(server):
    llm = make(server, rate_limit=RateLimit(max_concurrency=2))
    messages = [types.ChatMessage(role="system", content="Be brief."), types.ChatMessage("Hello")]
    whole = await llm.achat(messages)
    assert whole.message.content
    assert whole.additional_kwargs["total_tokens"] > 0
    so_far = [r async for r in await llm.astream_chat(messages)]
    assert so_far[-1].message.content == "".join(r.delta for r in so_far) == whole.message.content
    assert so_far[-1].additional_kwargs["completion_tokens"] > 0
    assert (await llm.acomplete("Hello")).text
    texts = [r async for r in await llm.astream_complete("Hello")]
    assert texts[-1].text == "".join(r.delta for r in texts)
    await asyncio.gather(*(llm.acomplete(str(number)) for number in range(8)))
    assert server.peak_in_flight <= 2
    await llm.aclose()


def test_blocking_calls_and_what_the_model_list_says(server):
    llm = make(server)
    assert llm.chat([types.ChatMessage("Hello")]).message.content
    assert list(llm.stream_chat([types.ChatMessage("Hello")]))[-1].message.content
    assert llm.complete("Hello").text
    assert list(llm.stream_complete("Hello"))[-1].text
    assert (llm.metadata.context_window, llm.metadata.is_chat_model) == (8192, True)
    llm.close()
    text = ours.Konko(model=TEXT_MODEL, konko_api_key=KEY, api_base=server.base_url)
    assert (text.metadata.context_window, text.metadata.is_chat_model) == (16384, False)
    assert text.complete("def f():").text
    assert list(text.stream_complete("def f():"))[-1].text
    assert {
        r.path.rpartition("/")[2] for r in server.requests if r.body and r.body.get("prompt")
    } == {"completions"}
    text.close()


async def test_tools_and_structured_output(server):
    llm = make(server)
    tool = tools.FunctionTool.from_defaults(fn=add)
    answer = await llm.achat_with_tools([tool], "What is add of 3 and 4?", tool_required=True)
    (call,) = llm.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 3, "b": 4})
    streamed = [
        r async for r in await llm.astream_chat_with_tools([tool], "What is add of 3 and 4?")
    ]
    assert llm.get_tool_calls_from_response(streamed[-1])[0].tool_kwargs == {"a": 3, "b": 4}
    history = [
        types.ChatMessage("What is add of 3 and 4?"),
        answer.message,
        types.ChatMessage(
            role="tool", content="7", additional_kwargs={"tool_call_id": call.tool_id}
        ),
    ]
    assert (await llm.achat(history)).message.content
    sent = server.requests[-1].body["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
    result = await llm.apredict_and_call([tool], "What is add of 3 and 4?")
    assert str(result.response) == "7"
    from llama_index.core.program.function_program import get_function_tool
    from llama_index.core.prompts import PromptTemplate

    joke = await llm.astructured_predict(Joke, PromptTemplate("Tell 'one'"))
    assert isinstance(joke, Joke)
    with pytest.raises(ValueError, match="no tool"):
        llm.get_tool_calls_from_response(await llm.achat([types.ChatMessage("Hello")]))
    assert get_function_tool(Joke)
    await llm.aclose()


async def test_parts_and_arguments_of_the_class_that_it_replaces(server):
    llm = ours.Konko(
        model=MODEL,
        temperature=0.5,
        max_tokens=20,
        additional_kwargs={"seed": 3},
        max_retries=1,
        konko_api_key=KEY,
        openai_api_key=None,
        api_type=None,
        api_base=server.base_url,
        api_version=None,
        model_info_dict={},
        system_prompt="Be brief.",
    )
    image = types.ImageBlock(url="https://example.org/a.png", image_mimetype="image/png")
    await llm.achat([types.ChatMessage(role="user", blocks=[types.TextBlock(text="What?"), image])])
    sent = server.requests[-1].body
    assert (sent["temperature"], sent["max_tokens"], sent["seed"]) == (0.5, 20, 3)
    assert [part["type"] for part in sent["messages"][0]["content"]] == ["text", "image_url"]
    assert KEY not in repr(llm)
    assert KEY not in str(llm.to_dict())
    assert llm.class_name() == "Konko_LLM"
    with pytest.raises(ValueError, match="KONKO_API_KEY"):
        ours.Konko(model=MODEL)
    block = types.ToolCallBlock(tool_name="f", tool_kwargs="not JSON")
    message = types.ChatMessage(role="assistant", blocks=[block])
    assert (
        llm.get_tool_calls_from_response(types.ChatResponse(message=message))[0].tool_kwargs == {}
    )
    await llm.aclose()


async def test_a_given_client_and_one_that_is_dropped(server):
    async with AsyncKonko(KEY, server.base_url) as given:
        llm = ours.Konko(model=MODEL, async_client=given)
        assert (await llm.acomplete("Hello")).text
        assert llm.metadata.context_window == 3900  # nobody may be asked
        await llm.aclose()
        assert not given.closed
    llm = make(server)
    tasks = len(asyncio.all_tasks())
    await llm.acomplete("Hello")
    client = llm._clients._loops.get()
    del llm
    gc.collect()
    # The client counts as closed when its end begins; its connections take a moment longer.
    await until(lambda: client.closed and len(asyncio.all_tasks()) == tasks)


async def test_embeddings(server):
    texts = [f"text {number}" for number in range(5)]
    made = ours.KonkoEmbedding(
        model_name=MODEL, konko_api_key=KEY, api_base=server.base_url, embed_batch_size=2
    )
    found = await made.aget_text_embedding_batch(texts)
    assert len(found) == 5
    assert found[3] == await made.aget_query_embedding("text 3")
    assert await asyncio.to_thread(made.get_text_embedding_batch, texts) == found
    assert await asyncio.to_thread(made.get_text_embedding, "text 3") == found[3]
    await made.aclose()
