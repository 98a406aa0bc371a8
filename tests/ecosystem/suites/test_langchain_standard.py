"""LangChain's own acceptance tests, for our chat model and for ChatOpenAI, in the same run."""

import asyncio
import threading

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from konko_async.integrations.langchain import ChatKonko, KonkoEmbeddings
from konko_async.testing import Emulator, answer_from_prompt

MODEL = "codellama/codellama-13b-instruct"


class Server:
    """A server in a thread of its own: the emulator, or the local model."""

    def __init__(self, make):
        self._make = make

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._make()
        self._run(self._server.__aenter__())
        return self._server

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def __exit__(self, *_):
        self._run(self._server.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="class")
def emulator(request):
    with Server(lambda: Emulator(answer=answer_from_prompt)) as found:
        request.cls.base_url = found.base_url
        yield


@pytest.fixture(scope="class")
def local_model(request):
    pytest.importorskip("xllamacpp")
    from konko_async.local import LocalServer

    with Server(LocalServer) as found:
        request.cls.base_url, request.cls.model_id = found.base_url, found.model
        request.cls.key = found.api_key
        yield


class Ours:
    base_url = "http://127.0.0.1:1/v1"  # of what makes no calls
    model_id = MODEL
    key = "k"

    @property
    def chat_model_class(self):
        return ChatKonko

    @property
    def chat_model_params(self):
        return {"model": self.model_id, "api_key": self.key, "base_url": self.base_url}


class Theirs:
    base_url = "http://127.0.0.1:1/v1"
    model_id = MODEL
    key = "k"

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {
            "model": self.model_id,
            "api_key": self.key,
            "base_url": self.base_url,
            "stream_usage": True,
        }


class Abilities:
    """What our server can do, said of both models."""

    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True
    supports_json_mode = True
    returns_usage_metadata = True


class TestUnitsOfOurs(Ours, ChatModelUnitTests):
    @property
    def init_from_env_params(self):
        env = {"KONKO_API_KEY": "key", "KONKO_BASE_URL": "https://base.example"}
        expected = {"konko_api_key": "key", "konko_base_url": "https://base.example"}
        return env, {"model": MODEL}, expected


class TestUnitsOfTheirs(Theirs, ChatModelUnitTests):
    @property
    def init_from_env_params(self):
        env = {"OPENAI_API_KEY": "key", "OPENAI_API_BASE": "https://base.example"}
        expected = {"openai_api_key": "key", "openai_api_base": "https://base.example"}
        return env, {"model": MODEL}, expected


@pytest.mark.usefixtures("emulator")
class TestCallsOfOurs(Abilities, Ours, ChatModelIntegrationTests):
    pass


@pytest.mark.usefixtures("emulator")
class TestCallsOfTheirs(Abilities, Theirs, ChatModelIntegrationTests):
    pass


@pytest.mark.usefixtures("emulator")
class TestEmbeddingsOfOurs(EmbeddingsIntegrationTests):
    embeddings_class = KonkoEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": MODEL, "api_key": "k", "base_url": self.base_url}


@pytest.mark.usefixtures("local_model")
class TestLocalModelOfOurs(Abilities, Ours, ChatModelIntegrationTests):
    pass


@pytest.mark.usefixtures("local_model")
class TestLocalModelOfTheirs(Abilities, Theirs, ChatModelIntegrationTests):
    pass
