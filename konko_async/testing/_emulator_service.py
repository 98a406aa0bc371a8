"""The HTTP side of the emulator: from a request to its reply."""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from konko_async.testing._emulator_answers import (
    Answer,
    Custom,
    answer_chat,
    answer_completion,
    read_messages,
    read_prompts,
)
from konko_async.testing._emulator_checks import check_chat, check_completion, check_embedding
from konko_async.testing._emulator_embeddings import embedding
from konko_async.testing._emulator_errors import ApiError
from konko_async.testing._emulator_log import Call
from konko_async.testing._emulator_reply import SSE_TYPE, Events, Pause, Reply, json_reply
from konko_async.testing._emulator_send import send
from konko_async.testing._emulator_state import EmulatorState
from konko_async.testing._emulator_window import retry_headers
from konko_async.testing._emulator_wire import (
    Meta,
    chat_body,
    chat_events,
    completion_body,
    completion_events,
)

_log: Final = logging.getLogger("konko_async.testing")
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_JSON: Final = {"content-type": "application/json"}

Body = dict[str, Any]


class Service:
    """Answers requests. One object serves all connections of an emulator."""

    def __init__(self, state: EmulatorState) -> None:
        self._state = state
        self._posts: dict[str, Callable[[Call, Body], Any]] = {
            "/chat/completions": self._chat,
            "/completions": self._completion,
            "/embeddings": self._embedding,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, and write down what became of it."""
        state = self._state
        call = state.begin(request.method, request.raw_path, request.headers)
        try:
            return await self._respond(request, call)
        except asyncio.CancelledError:
            call.disconnected = not (state.closing or call.hung_up)
            raise
        except ConnectionError:
            call.disconnected = not state.closing
            # aiohttp finds out by itself, and in silence; raised, it would be logged as a crash.
            return web.Response()
        finally:
            state.end(call)

    async def _respond(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        problem = await _read(request, call)
        faults = self._state.faults_for(call)
        if any(fault.early for fault in faults):
            reply = Reply(200, {}, [])
        else:
            try:
                reply = await self._answer(call, problem)
            except ApiError as error:
                reply = json_reply(error.status, error.body, error.headers)
        if faults:
            reply.make()
        for fault in faults:
            fault.edit(reply)
        reply.headers["x-request-id"] = call.request_id
        return await send(request, reply, call, self._state.changed)

    async def _answer(self, call: Call, problem: ApiError | None) -> Reply:
        """The reply to a request that no fault is meant for.

        Raises:
            ApiError: If it is an error.
        """
        path = call.path.partition("?")[0]
        route = path.removeprefix("/v1")
        post = self._posts.get(route)
        if post is None and route != "/models" and not route.startswith("/models/"):
            raise ApiError(404, f"Invalid URL ({call.method} {path})", code="unknown_url")
        allowed = "GET" if post is None else "POST"
        if call.method != allowed:
            message = f"Not allowed to {call.method} on {path} (allowed: {allowed})"
            raise ApiError(405, message, headers={"allow": allowed})
        self._check_key(call)
        if post is None:
            return self._models(unquote(route[len("/models/") :]))
        if problem is not None:
            raise problem
        reply: Reply = await post(call, call.body)
        return reply

    def _check_key(self, call: Call) -> None:
        if self._state.knows_key(call.key):
            return
        if call.key:
            message = "Incorrect API key provided."
        else:
            message = "You didn't provide an API key: send it as 'Authorization: Bearer KEY'."
        raise ApiError(401, message, headers={"www-authenticate": "Bearer"})

    def _models(self, id: str) -> Reply:
        """GET /models, or with an id GET /models/{id}."""
        if id:
            return json_reply(200, _encode(self._model(id)))
        models = list(self._state.models.values())
        return json_reply(200, _encode({"object": "list", "data": models}))

    def _model(self, id: Any, kind: str | None = None) -> Mapping[str, Any]:
        """The model asked for, which must be of this kind."""
        if id is None:
            message = "you must provide a model parameter"
            raise ApiError(400, message, param="model", code="missing_required_parameter")
        model = self._state.models.get(id) if isinstance(id, str) else None
        if model is None:
            message = f"The model {id!r} does not exist or you do not have access to it."
            raise ApiError(404, message, param="model", code="model_not_found")
        if kind and self._state.enforce_model_kind and model.get(kind) is False:
            message = f"The model {id!r} is not supported here: its {kind!r} is false."
            raise ApiError(404, message, param="model", code="model_not_supported")
        return model

    async def _chat(self, call: Call, body: Body) -> Reply:
        model = self._model(body.get("model"), "is_chat")
        check_chat(body)
        prompt = read_messages(body["messages"])
        _check_length(model, body, prompt.tokens)
        custom = await self._custom(body)
        answer = answer_chat(body, prompt, custom, self._state.answer_tokens)
        headers = await self._admit(call, answer.usage["total_tokens"])
        meta = Meta(f"chatcmpl-{call.index:024x}", _now(), body["model"])
        if body.get("stream"):
            events = chat_events(meta, answer, body, self._state.chunk_tokens)
            return self._stream(events, answer, headers)
        return self._whole(chat_body(meta, answer, body), answer, headers)

    async def _completion(self, call: Call, body: Body) -> Reply:
        model = self._model(body.get("model"), "is_text")
        check_completion(body)
        prompts = read_prompts(body["prompt"])
        _check_length(model, body, max(prompt.tokens for prompt in prompts))
        custom = await self._custom(body)
        answer = answer_completion(body, prompts, custom, self._state.answer_tokens)
        headers = await self._admit(call, answer.usage["total_tokens"])
        meta = Meta(f"cmpl-{call.index:024x}", _now(), body["model"])
        if body.get("stream"):
            events = completion_events(meta, answer, body, self._state.chunk_tokens)
            return self._stream(events, answer, headers)
        return self._whole(completion_body(meta, answer, body), answer, headers)

    async def _embedding(self, call: Call, body: Body) -> Reply:
        model = self._model(body.get("model"))
        check_embedding(body)
        prompts = read_prompts(body["input"])
        _check_length(model, {}, max(prompt.tokens for prompt in prompts))
        tokens = sum(prompt.tokens for prompt in prompts)
        headers = await self._admit(call, tokens)
        data = [
            {"object": "embedding", "index": at, "embedding": embedding(prompt.question, body)}
            for at, prompt in enumerate(prompts)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        whole = {"object": "list", "data": data, "model": body["model"], "usage": usage}
        return self._whole(_encode(whole), Answer([], tokens), headers)

    async def _custom(self, body: Body) -> Custom | None:
        """The user's own answer, if there is a hook for it."""
        if self._state.answer is None:
            return None
        try:
            answer = self._state.answer(body)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            # The client is told, and the log has the traceback: a broken hook is a broken test.
            _log.exception("the emulator's answer= function failed")
            message = f"The emulator's answer= function failed: {type(error).__name__}: {error}"
            raise ApiError(500, message, code="answer_hook_failed") from error

    async def _admit(self, call: Call, tokens: int) -> dict[str, str]:
        """Let the call pass the limits and take a place; the headers that its answer gets.

        Raises:
            ApiError: 429 over a limit, the overload status above the capacity.
        """
        state, headers = self._state, {}
        limits = state.limits_of(call)
        if limits is not None:
            settings = (state.limit_window, state.requests_per_minute, state.tokens_per_minute)
            now = time.monotonic()
            wait, limit = limits.admit(now, *settings, tokens)
            headers = limits.headers(now, *settings)
            if wait:
                state.rejected += 1
                raise _over_limit(call, limit, wait, state, headers)
        if not await state.enter(call):
            message = "The server is overloaded: all its places are taken."
            raise ApiError(state.overload_status, message, code="overloaded", headers=headers)
        return headers

    def _whole(self, body: bytes, answer: Answer, headers: dict[str, str]) -> Reply:
        reply = Reply(200, {**_JSON, **headers}, [body], usage=answer.usage)
        seconds = self._state.latency
        if self._state.tokens_per_second:
            longest = max((choice.size for choice in answer.choices), default=0)
            seconds += longest / self._state.tokens_per_second
        if seconds:
            reply.before.append(Pause(seconds))
        return reply

    def _stream(self, events: Events, answer: Answer, headers: dict[str, str]) -> Reply:
        head = {"content-type": SSE_TYPE, "cache-control": "no-cache", **headers}
        reply = Reply(200, head, [], sse=True, usage=answer.usage, unmade=events)
        if self._state.tokens_per_second:
            each = self._state.chunk_tokens / self._state.tokens_per_second
            reply.interval = each / max(len(answer.choices), 1)
        if self._state.latency:
            reply.before.append(Pause(self._state.latency))
        return reply


async def _read(request: web.BaseRequest, call: Call) -> ApiError | None:
    """Read and decode the body into `call`.

    Returns:
        What is wrong with it, if something is.
    """
    if request.method != "POST":
        return None
    if request.headers.get("expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        return ApiError(413, f"The body is longer than {request.client_max_size} bytes.")
    except web.RequestPayloadError:
        return ApiError(400, "The body could not be read: its encoding is broken.")
    try:
        call.body = body = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ApiError(
            400, "We could not parse the JSON body of your request.", code="invalid_json"
        )
    if not isinstance(body, dict):
        return ApiError(400, "The body of the request must be a JSON object.", code="invalid_json")
    model = body.get("model")
    call.model = model if isinstance(model, str) else None
    call.stream = bool(body.get("stream"))
    return None


def _check_length(model: Mapping[str, Any], body: Body, prompt_tokens: int) -> None:
    """Refuse what does not fit in the model's context."""
    longest = model.get("max_context_length")
    wanted = body.get("max_completion_tokens") or body.get("max_tokens") or 0
    if longest is None or prompt_tokens + wanted <= longest:
        return
    message = (
        f"This model's maximum context length is {longest} tokens. However, you requested "
        f"{prompt_tokens + wanted} tokens ({prompt_tokens} in the prompt, {wanted} in the "
        "completion)."
    )
    param = "messages" if "messages" in body else None
    raise ApiError(400, message, param=param, code="context_length_exceeded")


def _over_limit(
    call: Call, limit: str, wait: float, state: EmulatorState, headers: dict[str, str]
) -> ApiError:
    most = state.requests_per_minute if limit == "requests" else state.tokens_per_minute
    message = (
        f"Rate limit reached for {call.model} on {limit}: {most} in {state.limit_window:g} s. "
    )
    if wait == float("inf"):
        message += "The request is larger than the limit and can never be served."
        return ApiError(429, message, code="request_too_large", headers=headers)
    message += f"Please try again in {wait:.3f} s."
    return ApiError(
        429, message, code="rate_limit_exceeded", headers={**headers, **retry_headers(wait)}
    )


def _now() -> int:
    return int(time.time())
