"""konko_async: typed chunks or text, with everything on or plain."""

from __future__ import annotations

from konko_async import AsyncKonko, CallRecord, RateLimit, RetryPolicy, Timeout

MODEL = "codellama/codellama-13b-instruct"
MAX_TOKENS = 300


class Account:
    """Accounting as a service would do it: tokens and calls, by model."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.tokens: dict[str, int] = {}

    def __call__(self, record: object) -> None:
        if isinstance(record, CallRecord):
            model = record.model or ""
            self.calls[model] = self.calls.get(model, 0) + 1
            tokens = (record.prompt_tokens or 0) + (record.completion_tokens or 0)
            self.tokens[model] = self.tokens.get(model, 0) + tokens


class Client:
    def __init__(self, base_url: str, mode: str) -> None:
        self.account = Account()
        if mode == "plain":
            off = Timeout(connect=None, first_token=None, idle=None, total=None)
            self.client = AsyncKonko("key", base_url, timeout=off, retry=None)
        else:
            self.client = AsyncKonko(
                "key",
                base_url,
                timeout=Timeout(connect=30, first_token=120, idle=60, total=600),
                rate_limit=RateLimit(
                    requests_per_minute=1e9, tokens_per_minute=1e12, max_concurrency=100_000
                ),
                retry=RetryPolicy(base_delay=0.001, budget_ratio=None),  # refusals name 1 ms
                observers=[self.account],
            )
        if mode == "text":
            self.stream = self.stream_text  # type: ignore[method-assign]

    async def stream(self, pieces: list[str], prompt: str) -> None:
        append = pieces.append
        async with self.client.chat.completions.stream(
            model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS
        ) as stream:
            async for chunk in stream:
                append(chunk.choices[0].delta.content)

    async def stream_text(self, pieces: list[str], prompt: str) -> None:
        append = pieces.append
        async with self.client.chat.completions.stream(
            model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS
        ) as stream:
            async for text in stream.text():
                append(text)

    async def first(self, prompt: str) -> str:
        async with self.client.chat.completions.stream(
            model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS
        ) as stream:
            async for text in stream.text():
                return text
        return ""

    async def whole(self, prompt: str) -> str:
        completion = await self.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS
        )
        return completion.choices[0].message.content

    async def close(self) -> None:
        await self.client.close()


def make(base_url: str, mode: str) -> Client:
    return Client(base_url, mode)
