"""The one place that decides what an error means: for retry, breaker, limits, batch and relay.

Servers spell the same fact in many ways: by status, ``code``, ``type`` or only in words. The tables
below were gathered from the providers' documentation and from public bug reports. Whoever needs a
decision asks :func:`classify`, and never looks at statuses or codes of its own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec

from konko_async.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    CircuitOpenError,
    RateLimitStoreError,
    RateLimitTimeoutError,
    ResponseDecodeError,
    StreamError,
    StreamServerError,
)

__all__ = [
    "RETRY_STATUSES",
    "Classification",
    "Kind",
    "classify",
    "classify_status",
    "named_status",
]

Kind = Literal[
    "connection", "timeout", "deadline", "cut_off", "unreadable", "circuit_open", "local_limit",
    "rate_limit", "overloaded", "server_error", "conflict",
    "out_of_credit", "authentication", "forbidden", "missing_model", "not_found", "redirect",
    "too_long", "refused", "invalid_request", "other",
]  # fmt: skip

_SERVER_ERRORS = range(500, 600)
# 501 and 505 say that the server never can; every other 5xx may pass, Cloudflare's 520 to 530 (the
# origin behind it had a hiccup) and Anthropic's 529 (overloaded) included.
RETRY_STATUSES = frozenset({408, 409, 425, 429, *_SERVER_ERRORS} - {501, 505})

_TRANSIENT: frozenset[Kind] = frozenset(
    {
        "connection", "timeout", "cut_off", "circuit_open", "local_limit", "rate_limit",
        "overloaded", "server_error", "conflict",
    }
)  # fmt: skip
# An account, a key or an address fails every row alike. A model or a path may be one row's own, so
# those end a batch only as long as nothing has been answered.
_ENDS_BATCH: frozenset[Kind] = frozenset({"out_of_credit", "authentication", "redirect"})
_ENDS_BATCH_IF_FIRST: frozenset[Kind] = frozenset({"forbidden", "missing_model", "not_found"})
_BLAMES_REQUEST: frozenset[Kind] = (
    _ENDS_BATCH | _ENDS_BATCH_IF_FIRST | {"too_long", "refused", "invalid_request"}
)


class Classification(msgspec.Struct, frozen=True, gc=False):
    """What an error means.

    Attributes:
        kind: one word for the cause:

            - of the way there: ``connection``, ``timeout`` (of one attempt), ``deadline`` (of the
              whole call), ``cut_off`` (a stream or body that ended early or fell silent),
              ``unreadable`` (an answer that is not what was promised);
            - of this process: ``circuit_open``, ``local_limit`` (nothing was sent);
            - of the server: ``rate_limit``, ``overloaded``, ``server_error``, ``conflict`` (409 and
              425: the same request again may pass);
            - of the account or the configuration: ``out_of_credit``, ``authentication``,
              ``forbidden``, ``missing_model``, ``not_found`` (a wrong path), ``redirect``;
            - of the request: ``too_long``, ``refused`` (a content filter), ``invalid_request``;
            - ``other``: anything that is not of this package.
        retryable: the same request, sent again to the same server by the same call, may pass.
        transient: the cause passes by itself, so that a batch waits and never counts it as the
            row's failure. A circuit that is open is transient, but not worth a retry.
        ends_batch: every other request with this key fails too.
        ends_batch_if_first: every other request fails too if none has been answered yet: a model
            that does not exist, a wrong path, a region or project without access. Later on it may
            be one row that names another model.
        blames_request: the request, its key or its account is at fault, not the server's health.
        status: the HTTP status, also one that an error event names; or None.
        max_retries: retries that are worth while, whatever the policy allows: 1 where a 5xx blames
            the request, as some servers crash on inputs that they cannot take. None: no bound.
    """

    kind: Kind
    retryable: bool = False
    transient: bool = False
    ends_batch: bool = False
    ends_batch_if_first: bool = False
    blames_request: bool = False
    status: int | None = None
    max_retries: int | None = None

    @property
    def out_of_credit(self) -> bool:
        """Whether no waiting helps, as the account's credit or budget is used up."""
        return self.kind == "out_of_credit"

    @property
    def too_long(self) -> bool:
        """Whether the input exceeds what the model or server takes: a shorter one may pass."""
        return self.kind == "too_long"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names in ``code`` and ``type``, without case and punctuation: InsufficientQuota is the same as
# insufficient_quota. The first group that holds one of an error's names decides.
_NAMES: tuple[tuple[Kind, frozenset[str]], ...] = (
    (
        "out_of_credit",
        _words("""
            accountoverdue accountoverdueerror arrearage billing billingerror
            billinghardlimitreached billinglimitreached billingnotactive budgetexceeded
            creditbalancetoolow creditlimit creditlimitexceeded creditsexhausted
            exceededcurrentquotaerror exceededbudget insufficientbalance insufficientcredit
            insufficientcredits insufficientfunds insufficientquota nocredits notenoughcredits
            outofcredits overdue paymentrequired paymentrequirederror quotaexceeded
            spendinglimitreached
            """),
    ),
    (
        "authentication",
        _words("""
            accountdeactivated apikeyinvalid authenticationerror autherror expiredapikey
            incorrectapikey invalidapikey invalidauthentication invalidauthenticationerror
            missingapikey noapikey unauthenticated unauthorized
            """),
    ),
    (
        "forbidden",
        _words("""
            accessdenied accountsuspended forbidden permissiondenied permissiondeniederror
            permissionerror regionerror regionnotsupported requestforbidden
            unsupportedcountryregionterritory
            """),
    ),
    (
        "missing_model",
        _words("""
            deploymentnotfound invalidmodel modelnotavailable modelnotexist modelnotfound
            modelnotsupported notfound notfounderror unknownmodel
            """),
    ),
    (
        "too_long",
        _words("""
            contextlengthexceeded contextlengtherror contextwindowexceeded
            contextwindowexceedederror exceedcontextsizeerror inputtoolong payloadtoolarge
            prompttoolong requesttoolarge requestentitytoolarge
            """),
    ),
    (
        "refused",
        _words("""
            contentfilter contentfiltererror contentpolicyviolation contentpolicyviolationerror
            datainspectionfailed moderationblocked promptblocked responsibleaipolicyviolation
            sensitivecontent
            """),
    ),
)
# These are given beside a more exact word as often as not, so a status goes before them; they
# decide for error events, where there is none, and for throttling that comes as a 400.
_VAGUE_NAMES: tuple[tuple[Kind, frozenset[str]], ...] = (
    (
        "rate_limit",
        _words("""
            ratelimit ratelimiterror ratelimitexceeded ratelimitreached ratelimitreachederror
            requestlimitexceeded resourceexhausted throttling throttlingerror throttlingexception
            toomanyrequests
            """),
    ),
    (
        "overloaded",
        _words("""
            engineoverloaded engineoverloadederror modeloverloaded overloaded overloadederror
            serviceunavailable serviceunavailableerror unavailable unavailableerror
            """),
    ),
    (
        "invalid_request",
        _words("""
            badrequest badrequesterror invalidargument invalidparameter invalidparametererror
            invalidprompt invalidrequest invalidrequesterror invalidvalue stringabovemaxlength
            unprocessableentity unsupportedparameter unsupportedvalue validationerror
            """),
    ),
)
_PUNCTUATION = re.compile(r"[^0-9a-z]+")

# Words in messages, for servers whose status and names say too little: Anthropic's 400 and
# DeepSeek's 402 for credit, xAI's 403 and 429, Moonshot's and Zhipu's 429, SiliconFlow's 403,
# LiteLLM's 400 and 429 for budgets. "You exceeded your current quota" is out of credit with OpenAI
# and a limit per minute with Gemini, which names its site and the seconds to wait.
_CREDIT = (
    r"(?s)insufficient[ _](?:\w+[ _]){0,2}(?:balance|credits?|funds|quota)"
    r"|(?:balance|credits?) (?:is|are) (?:too low|insufficient|exhausted|used up)"
    r"|not enough (?:credits?|balance)|(?:run |ran )?out of credits?|used all available credits"
    r"|(?:doesn't|does not) have any credits|no (?:credits?|balance) (?:left|remaining)"
    r"|requires more credits|(?:purchase|add|buy) (?:more )?credits|please (?:recharge|top up)"
    r"|payment required|billing (?:account )?(?:is )?not active|billing hard limit"
    r"|(?:monthly|weekly) (?:spending |usage )?(?:limit|quota)|spending limit"
    r"|budget has been exceeded|exceeded ?(?:your |the )?budget|over budget|crossed budget"
    r"|overdue (?:payment|balance|bill)|account is in arrears|余额不足|欠费|请充值"
    r"|exceeded your current quota, please check your plan(?!.*(?:ai\.google|retry in))"
)
_KEY = (
    r"(?:incorrect|invalid|missing|expired|unknown|wrong) (?:x-)?api[ _-]?key"
    r"|api[ _-]?key (?:is )?(?:not valid|invalid|expired|missing|not found)"
    r"|no api[ _-]?key|invalid (?:authentication|bearer)|authentication (?:failed|fails)"
)
_REGION = (
    r"(?:country|countries|region|territor\w+|location)\W.{0,40}not (?:supported|available|allowed)"
    r"|not (?:supported|available|allowed) (?:in|from) .{0,40}(?:countr|region|location)"
)
_MODEL = (
    # The verb follows the model's name: "`temperature` is not supported with this model" is not it.
    r"\bmodels?[\s:=/]*[\"'`]?[\w./:@+-]{0,120}[\"'`]?,? (?:(?:does|is|was|could|can) )?"
    r"(?:not (?:be )?(?:exist|found|a valid|valid|available|supported)|no longer available|unknown)"
    r"|(?:no such|unknown|unsupported|invalid) model\b|is not a valid model|no endpoints found"
    r"|unable to access model"
)
_LENGTH = (
    r"context[ _](?:length|window|size|limit)|prompt is too long|input is too (?:long|large)"
    r"|maximum prompt length|(?:input|prompt) (?:tokens? )?(?:count|length).{0,40}exceeds?"
    r"|input tokens? exceeds?|inputs` tokens|exceeded model token limit|token limit exceeded"
    r"|request (?:entity )?(?:is )?too large|payload too large|reduce (?:the length of|your) "
    r"|(?:prompt|messages?|input) (?:contains?|has|have) too many tokens|too large for model"
    r"|length of all messages is too long|too many input tokens"
    r"|exceeds the (?:maximum|max) (?:number of )?(?:input )?tokens|context ?window ?exceeded"
    r"|longer than the maximum model length|range of input length should be"
)
# A 429 may be final: the request alone is larger than the tokens of a minute (OpenAI and Groq).
_LARGER_THAN_LIMIT = r"request too large for"
_FILTER = (
    r"content (?:management|safety )?(?:policy|filter)|usage polic|was flagged|input was blocked"
    r"|flagged by moderation|safety (?:system|policy)|inappropriate content"
)
_PATTERNS: tuple[tuple[Kind, AbstractSet[int | None] | None, str], ...] = (
    ("out_of_credit", None, _CREDIT),
    ("too_long", {413, 429}, _LARGER_THAN_LIMIT),
    ("authentication", {400, 401, 403}, _KEY),
    ("forbidden", {400, 403}, _REGION),
    ("missing_model", {400, 404, 422}, _MODEL),
    # Not with a 429: "too many tokens, please wait" is a throttle.
    ("too_long", {None, 400, 413, 422, 500}, _LENGTH),
    ("refused", {None, 400, 403, 422, 451}, _FILTER),
)
# Each is compiled when it is used first: together they take 3 ms, and most processes meet no error.
_compiled = functools.cache(functools.partial(re.compile, flags=re.IGNORECASE))
_MESSAGE_READ = 1000  # characters; what servers quote of long requests says nothing

_BY_STATUS: dict[int, Kind] = {
    401: "authentication",
    402: "out_of_credit",
    403: "forbidden",
    404: "not_found",
    405: "not_found",
    408: "timeout",
    409: "conflict",
    410: "not_found",
    413: "too_long",
    425: "conflict",
    429: "rate_limit",
    501: "invalid_request",
    503: "overloaded",
    504: "timeout",
    505: "invalid_request",
    522: "timeout",
    524: "timeout",
    529: "overloaded",
}
# The status that a name stands for where an error inside a 200 gives no number.
_STATUS_BY_KIND: dict[Kind, int] = {
    "authentication": 401,
    "out_of_credit": 402,
    "forbidden": 403,
    "missing_model": 404,
    "rate_limit": 429,
    "overloaded": 529,
    "too_long": 400,
    "refused": 400,
    "invalid_request": 400,
}
_STATUS_BY_NAME = {
    "insufficientquota": 429,
    "requests": 429,
    "tokens": 429,
    "timeout": 408,
    "deadlineexceeded": 504,
    "apierror": 500,
    "internal": 500,
    "internalerror": 500,
    "internalservererror": 500,
    "servererror": 500,
    "badgateway": 502,
    "serviceunavailable": 503,
    "serviceunavailableerror": 503,
    "unavailable": 503,
    "unavailableerror": 503,
}
# The names above decide; of the others, as for _NAMES, the first group that holds a name.
_STATUS_BY_WORD = {
    word: _STATUS_BY_KIND[kind]
    for kind, known in reversed(_NAMES + _VAGUE_NAMES)
    if kind in _STATUS_BY_KIND
    for word in known
} | _STATUS_BY_NAME
_STATUS_DIGITS = 3


def classify(
    error: BaseException, retry_statuses: AbstractSet[int] = RETRY_STATUSES
) -> Classification:
    """Return what an error means: whether to retry, to wait, to end a batch, to blame the request.

    Pure: reads the error's class, status, ``code``, ``type``, message and ``x-should-retry``.

    Args:
        error: any exception; one that is not of this package is ``other``.
        retry_statuses: the statuses that are retried. Default: 408, 409, 425, 429 and every 5xx
            except 501 and 505.
    """
    if isinstance(error, APIStatusError):
        found = classify_status(
            error.status_code,
            error.code,
            error.type,
            error.message,
            param=error.param,
            retry_statuses=retry_statuses,
        )
        asked = error.headers.get("x-should-retry", "").strip().lower()
        # A header that openai's own clients obey, too. No credit is never retried, whatever it
        # says.
        if asked in {"true", "false"} and not found.out_of_credit:
            retry = asked == "true"
            return msgspec.structs.replace(
                found, retryable=retry, transient=retry and found.transient
            )
        return found
    if isinstance(error, StreamServerError):
        status = named_status(error.code, error.type)
        return classify_status(
            status, error.code, error.type, error.message, retry_statuses=retry_statuses
        )
    return _classify_local(error)


def _classify_local(error: BaseException) -> Classification:
    """Classify errors that hold no answer of the server, by their class."""
    kind: Kind = "other"
    retryable = False
    if isinstance(error, APIConnectionError):
        if not error.retryable and not isinstance(error, APITimeoutError):
            # A bad certificate: no request will get through.
            return Classification("connection", ends_batch=True)
        kind = "connection"
        if isinstance(error, APITimeoutError):
            kind = "deadline" if error.phase == "total" else "timeout"
        retryable = error.retryable
    elif isinstance(error, ResponseDecodeError):
        retryable = error.retryable
        kind = "cut_off" if retryable else "unreadable"
    elif isinstance(error, StreamError):
        kind, retryable = "cut_off", True
    elif isinstance(error, CircuitOpenError):
        kind = "circuit_open"
    elif isinstance(error, (RateLimitTimeoutError, RateLimitStoreError)):
        kind = "local_limit"
    return _of(kind, retryable=retryable)


def classify_status(
    status: int | None,
    code: str | None = None,
    type: str | None = None,
    message: str = "",
    *,
    param: str | None = None,
    retry_statuses: AbstractSet[int] = RETRY_STATUSES,
) -> Classification:
    """Return what a server's error means, from its parts, such as those of a saved result line.

    Args:
        status: the HTTP status; None for an error event that names none.
        code: the error's ``code``.
        type: the error's ``type``.
        message: the error's message.
        param: the parameter at fault.
        retry_statuses: the statuses that are retried.
    """
    kind = _kind(status, code, type, message[:_MESSAGE_READ], param)
    if status is None:
        return _of(kind, retryable=kind in _TRANSIENT)
    if status in _SERVER_ERRORS:
        retryable = status in retry_statuses and kind != "out_of_credit"
        # Some servers answer 500 to inputs that they cannot take, and some gateways map whatever
        # the server behind them says to 500: one more try, and no more.
        bound = 1 if kind in _BLAMES_REQUEST else None
        return _of(kind, retryable=retryable, status=status, max_retries=bound)
    # Final whatever the status: a 429 for want of credit, or for a request larger than the limit of
    # a minute, is the same again after any wait.
    if kind in {"out_of_credit", "too_long", "refused"}:
        return _of(kind, status=status)
    # Throttling that comes as a 400 or 403 is retried as what it should have been.
    counted = {"rate_limit": 429, "overloaded": 503}.get(kind, status)
    return _of(kind, retryable=counted in retry_statuses, status=status)


def _of(
    kind: Kind,
    *,
    retryable: bool = False,
    status: int | None = None,
    max_retries: int | None = None,
) -> Classification:
    return Classification(
        kind,
        retryable,
        kind in _TRANSIENT,
        kind in _ENDS_BATCH,
        kind in _ENDS_BATCH_IF_FIRST,
        kind in _BLAMES_REQUEST,
        status,
        max_retries,
    )


# Kept for the last errors: breaker, limits and retry ask about each one, one after the other, and
# what takes long is to look for all these words.
@functools.lru_cache(maxsize=64)
def _kind(
    status: int | None, code: str | None, type: str | None, message: str, param: str | None
) -> Kind:
    names = {_PUNCTUATION.sub("", name.lower()) for name in (code, type) if name}
    exact = _named(_NAMES, names)
    if exact in {"authentication", "forbidden"}:
        # Gateways refuse in the name of the key for want of credit (xAI, LiteLLM), or by a content
        # filter (OpenRouter), and say so only in words.
        spoken = _spoken(status, message)
        return spoken if spoken in {"out_of_credit", "refused"} else exact
    if exact is not None:
        return exact
    if "stringabovemaxlength" in names and (param or "").startswith(("messages", "prompt", "in")):
        return "too_long"
    if status == 402:  # noqa: PLR2004 - Payment Required, whatever the words
        return "out_of_credit"
    if status == 404 and param == "model":  # noqa: PLR2004 - Not Found: the model, not the path
        return "missing_model"
    vague = _named(_VAGUE_NAMES, names)
    return _spoken(status, message) or _plain(status, vague)


def _named(groups: tuple[tuple[Kind, frozenset[str]], ...], names: set[str]) -> Kind | None:
    return next((kind for kind, known in groups if not known.isdisjoint(names)), None)


def _plain(status: int | None, vague: Kind | None) -> Kind:
    """Decide by the status, where nothing more exact was said."""
    if status is None:
        return vague or "server_error"
    failed = status in _SERVER_ERRORS
    if vague is not None and (failed or status in {400, 403}):
        return vague
    if status == 429 and vague == "overloaded":  # noqa: PLR2004 - Moonshot: not the key's own limit
        return vague
    found = _BY_STATUS.get(status, "server_error" if failed else "invalid_request")
    return "redirect" if 300 <= status < 400 else found  # noqa: PLR2004 - the redirects of HTTP


def _spoken(status: int | None, message: str) -> Kind | None:
    """Read the cause from the message, with the words that fit the status."""
    for kind, statuses, pattern in _PATTERNS:
        if (statuses is None or status in statuses) and _compiled(pattern).search(message):
            return kind
    return None


def named_status(*names: object) -> int | None:
    """Return the error status that one of the values names by number or word, or None.

    Args:
        names: such as the ``status``, ``code`` and ``type`` of an error; the first that names one
            decides.
    """
    for name in names:
        if not isinstance(name, (str, int)):
            continue
        text = str(name).strip().lower()
        if len(text) == _STATUS_DIGITS and text.isascii() and text.isdigit():
            if 400 <= int(text) <= 599:  # noqa: PLR2004 - the error statuses of HTTP
                return int(text)
            continue
        status = _STATUS_BY_WORD.get(_PUNCTUATION.sub("", text))
        if status is not None:
            return status
    return None
