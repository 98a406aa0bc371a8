"""Answers HTTP requests: validates each, admits it, applies faults, and sends the reply."""

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from konko_async.testing._emulator.content.answers import (
    Custom,
    GeneratedAnswer,
    answer_chat,
    answer_completion,
    read_messages,
    read_prompts,
)
from konko_async.testing._emulator.content.embeddings import embedding
from konko_async.testing._emulator.content.prefill import OWNERS, beginning_of, without_beginning
from konko_async.testing._emulator.errors import ApiError
from konko_async.testing._emulator.jobs.routes import Jobs, read_upload
from konko_async.testing._emulator.log import LoggedCall, UnlimitedCall, loop_time
from konko_async.testing._emulator.reply import SSE_TYPE, Events, Pause, Reply, json_reply
from konko_async.testing._emulator.request_validation import (
    check_chat,
    check_completion,
    check_embedding,
)
from konko_async.testing._emulator.send import send
from konko_async.testing._emulator.sliding_window import retry_headers
from konko_async.testing._emulator.speak import speak
from konko_async.testing._emulator.state import EmulatorState
from konko_async.testing._emulator.strict_history import check_history
from konko_async.testing._emulator.wire import (
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
        self._posts: dict[str, Callable[[LoggedCall, Body], Any]] = {
            "/chat/completions": self._chat,
            "/completions": self._completion,
            "/embeddings": self._embedding,
        }
        self.jobs = Jobs(lambda: state.batches, self._row_of_batch, state.changed)
        self._rows = 0

    async def _row_of_batch(self, url: str, body: Body) -> bytes:
        """Answer a row of a batch; returns the body of its answer."""
        self._rows += 1
        call = UnlimitedCall(self._rows, "POST", url, {}, 0.0)
        reply: Reply = await self._posts[url.removeprefix("/v1")](call, body)
        return reply.body

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, and log how that ended."""
        state = self._state
        call = state.begin(request.method, request.raw_path, request.headers)
        try:
            return await self._respond(request, call)
        except asyncio.CancelledError:
            # Cancelled for one of three reasons: the emulator closes, a fault has hung up, or the
            # client left.
            call.disconnected = not (state.closing or call.hung_up)
            raise
        except ConnectionError:
            call.disconnected = not state.closing
            # aiohttp finds out by itself, and in silence; raised, it would be logged as a crash.
            return web.Response()
        finally:
            state.end(call)

    async def _respond(self, request: web.BaseRequest, call: LoggedCall) -> web.StreamResponse:
        # Before faults are looked up, as they may ask for the model; a broken body is reported only
        # after the key was checked, as servers do.
        problem = await _read(request, call)
        faults = self._state.faults_for(call)
        # No key check, limit or slot: an overloaded gateway refuses calls that never reach the
        # server.
        if any(fault.early for fault in faults):
            reply = Reply(200, {}, [])
        else:
            try:
                reply = await self._answer(call, problem)
            except ApiError as error:
                reply = json_reply(error.status, error.body, error.headers)
        # A stream without faults stays unmade: `send` then makes its events one by one.
        if faults:
            reply.make()
        for fault in faults:
            fault.edit(reply)
        # After the faults, so that errors and odd answers can be found in the log by it as well.
        reply.headers["x-request-id"] = call.request_id
        return await send(request, reply, call, self._state.changed)

    async def _answer(self, call: LoggedCall, problem: ApiError | None) -> Reply:
        """Make the reply to a request, as if there were no faults.

        Raises:
            ApiError: If it is an error.
        """
        path = call.path.partition("?")[0]
        route = path.removeprefix("/v1")
        if route == "/health" and call.method == "GET":  # routers and probes ask without a key
            return json_reply(200, b'{"status":"ok"}')
        if self.jobs.handles(route):
            self._check_key(call)
            return self.jobs.reply(call, route, problem)
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

    def _check_key(self, call: LoggedCall) -> None:
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
        owner = OWNERS.get(self._state.prefill or "")
        if owner is not None:
            models = [{**model, "owned_by": owner} for model in models]
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

    async def _chat(self, call: LoggedCall, body: Body) -> Reply:
        model = self._model(body.get("model"), "is_chat")
        check_chat(body)
        if self._state.strict_history:
            check_history(body["messages"])
        # Made before the call is admitted: the token limit counts what the answer will use, and a
        # request that makes no sense must not take a slot.
        answer = await self._chat_answer(model, body)
        headers = await self._admit(call, answer.usage["total_tokens"])
        meta = Meta(f"chatcmpl-{call.index:024x}", _now(), body["model"])
        if body.get("stream"):
            events = chat_events(meta, answer, body, self._state.chunk_tokens)
            reply = self._stream(events, answer, headers)
        else:
            reply = self._whole(chat_body(meta, answer, body), answer, headers)
        if self._state.dialect is not None:
            # Seeded by the call, so that a run can be repeated byte by byte.
            speak(self._state.dialect, reply, random.Random(call.index))  # noqa: S311 - random padding, no secret
        return reply

    async def _chat_answer(self, model: Mapping[str, Any], body: Body) -> GeneratedAnswer:
        server = self._state.prefill
        beginning = None if server is None else beginning_of(body, server)
        whole = read_messages(body["messages"])
        _check_length(model, body, whole.tokens)
        if beginning is None:
            custom = await self._custom(body)
            return answer_chat(body, whole, custom, self._state.answer_tokens)
        # The answer is the one to the conversation before, so that a continued text is the same.
        asked = without_beginning(body)
        prompt = read_messages(asked["messages"])
        prompt.tokens = whole.tokens
        return answer_chat(
            asked,
            prompt,
            await self._custom(asked),
            self._state.answer_tokens,
            beginning=beginning,
            repeats=server == "mistral",
        )

    async def _completion(self, call: LoggedCall, body: Body) -> Reply:
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

    async def _embedding(self, call: LoggedCall, body: Body) -> Reply:
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
        return self._whole(_encode(whole), GeneratedAnswer([], tokens), headers)

    async def _custom(self, body: Body) -> Custom | None:
        """The user's own answer, if there is a hook for it."""
        if self._state.answer is None:
            return None
        try:
            answer = self._state.answer(body)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            # A broken hook is a broken test: the client gets a 500, and the log has the traceback.
            _log.exception("the emulator's answer= function failed")
            message = f"The emulator's answer= function failed: {type(error).__name__}: {error}"
            raise ApiError(500, message, code="answer_hook_failed") from error

    async def _admit(self, call: LoggedCall, tokens: int) -> dict[str, str]:
        """Admit the call by limits and capacity; returns the headers of its answer.

        Raises:
            ApiError: 429 over a limit, the overload status above the capacity.
        """
        if isinstance(call, UnlimitedCall):
            return {}
        state, headers = self._state, {}
        limits = state.limits_of(call)
        if limits is not None:
            settings = (state.limit_window, state.requests_per_minute, state.tokens_per_minute)
            at = loop_time()
            # Limits before capacity: a call that is over its limit must not wait in the queue for a
            # slot.
            wait, limit = limits.admit(at, *settings, tokens)
            # Headers of refused calls too: clients learn the limit from a 429 as well as from a
            # 200.
            headers = limits.headers(at, *settings)
            if wait:
                state.rejected += 1
                raise _over_limit(call, limit, wait, state, headers)
        if not await state.enter(call):
            message = "The server is overloaded: all its places are taken."
            raise ApiError(state.overload_status, message, code="overloaded", headers=headers)
        return headers

    def _whole(self, body: bytes, answer: GeneratedAnswer, headers: dict[str, str]) -> Reply:
        reply = Reply(200, {**_JSON, **headers}, [body], usage=answer.usage)
        seconds = self._state.latency
        if self._state.tokens_per_second:
            # Choices are generated side by side, so the longest one decides when all of them are
            # there.
            longest = max((choice.size for choice in answer.choices), default=0)
            seconds += longest / self._state.tokens_per_second
        if seconds:
            reply.before.append(Pause(seconds))
        return reply

    def _stream(self, events: Events, answer: GeneratedAnswer, headers: dict[str, str]) -> Reply:
        head = {"content-type": SSE_TYPE, "cache-control": "no-cache", **headers}
        reply = Reply(200, head, [], sse=True, usage=answer.usage, unmade=events)
        if self._state.tokens_per_second:
            each = self._state.chunk_tokens / self._state.tokens_per_second
            # The events of several choices alternate: each choice keeps its pace if they share the
            # interval.
            reply.interval = each / max(len(answer.choices), 1)
        if self._state.latency:
            reply.before.append(Pause(self._state.latency))
        return reply


async def _read(  # noqa: PLR0911 - each way in which a body may be wrong
    request: web.BaseRequest, call: LoggedCall
) -> ApiError | None:
    """Read and decode the body into `call`.

    Returns:
        What is wrong with it, if something is.
    """
    if request.method != "POST" or request.path.endswith("/cancel"):
        return None
    # `web.Server` leaves this to an application, which the emulator has none of; without it curl
    # waits for a second before it sends a larger body.
    if request.headers.get("expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        if request.content_type.startswith("multipart/"):
            return await read_upload(request, call)
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
    # The answer's room counts, as on real servers: a prompt that fits may be refused for its
    # `max_tokens`.
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
    call: LoggedCall, limit: str, wait: float, state: EmulatorState, headers: dict[str, str]
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
