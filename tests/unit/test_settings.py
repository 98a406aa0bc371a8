"""What a client is set to: arguments, environment, and where keys may go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import AsyncKonko, ConfigurationError
from konko_async._core.config import DEFAULT_BASE_URL, check_headers, parse_base_url, resolve


def settings(**given):
    return resolve(
        **{"api_key": "k", "base_url": None, "openai_api_key": None, "default_headers": None,
           "allow_http": False, **given}
    )  # fmt: skip


def test_the_base_url_argument_wins_then_the_newer_variable_then_the_older(monkeypatch):
    assert settings().base_url == DEFAULT_BASE_URL == "https://api.konko.ai/v1"
    monkeypatch.setenv("KONKO_API_BASE", "https://older.example/v1")
    assert settings().base_url == "https://older.example/v1"
    monkeypatch.setenv("KONKO_BASE_URL", "https://newer.example/v1")
    assert settings().base_url == "https://newer.example/v1"
    assert settings(base_url="https://own.example").base_url == "https://own.example"
    monkeypatch.setenv("KONKO_BASE_URL", "")
    assert settings().base_url == "https://older.example/v1"
    assert settings(base_url="").base_url == "https://older.example/v1"


def test_the_key_argument_wins_then_the_environment(monkeypatch):
    with pytest.raises(ConfigurationError, match="KONKO_API_KEY"):
        settings(api_key=None)
    monkeypatch.setenv("KONKO_API_KEY", "")
    with pytest.raises(ConfigurationError, match="KONKO_API_KEY"):
        settings(api_key=None)
    monkeypatch.setenv("KONKO_API_KEY", "from-env")
    assert settings(api_key=None).api_key.header() == "from-env"
    assert settings(api_key="own").api_key.header() == "own"
    with pytest.raises(ConfigurationError, match="empty"):
        settings(api_key="")


def test_creating_a_client_reads_the_environment(monkeypatch):
    with pytest.raises(ConfigurationError, match="KONKO_API_KEY"):
        AsyncKonko()
    monkeypatch.setenv("KONKO_API_KEY", "canary")
    monkeypatch.setenv("KONKO_BASE_URL", "http://127.0.0.1:9/v1/")
    client = AsyncKonko()
    assert client.base_url == "http://127.0.0.1:9/v1"
    assert "canary" not in repr(client)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://api.konko.ai/v1", "https://api.konko.ai/v1"),
        ("https://api.konko.ai/v1/", "https://api.konko.ai/v1"),
        ("https://api.konko.ai/v1///", "https://api.konko.ai/v1"),
        ("  https://a.example \n".replace("\n", ""), "https://a.example"),
        ("https://a.example/", "https://a.example"),
        ("https://a.example:8443/x/y", "https://a.example:8443/x/y"),
        ("HTTPS://A.Example/V1", "https://A.Example/V1"),
        ("https://[::1]:8080/v1", "https://[::1]:8080/v1"),
        ("https://192.168.0.1", "https://192.168.0.1"),
        ("https://under_score.example", "https://under_score.example"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.8.8", "http://127.8.8.8"),
        ("http://[::1]/v1", "http://[::1]/v1"),
        ("http://model.localhost", "http://model.localhost"),
        ("http://LOCALHOST:1", "http://LOCALHOST:1"),
    ],
)
def test_base_urls(given, read):
    assert settings(base_url=given).base_url == read


@pytest.mark.parametrize(
    "given",
    [
        "api.konko.ai/v1", "ftp://a.example", "https://", "https:///v1", "https:a.example", "//a.example",
        "file:///etc/passwd", "https://a.example:99999", "https://a.example:x", "https://[::1",
        "https://a b.example", "https://a.example/a b", "https://a.example\t/", "ht tp://a.example",
        "https://a.example?x=1", "https://a.example/v1?", "https://a.example/v1#x", "https://a.example/#",
        "https://a.example\\.konko.ai", "https://a.example%2f.konko.ai", "https://a.example%00.konko.ai",
        "https://k\u00f6nko.example", "https://a.example\n", "https://a.ex\rample", "https://a\0.example",
        "https://[evil].konko.ai", "https://a.example;x.konko.ai", "https://a,b.konko.ai",
    ],
)  # fmt: skip
def test_what_is_no_base_url_is_refused(given):
    with pytest.raises(ConfigurationError, match="base_url"):
        settings(base_url=given, allow_http=True)


@pytest.mark.parametrize("given", [5, b"https://a.example", ["https://a.example"]])
def test_a_base_url_is_text(given):
    with pytest.raises(ConfigurationError, match="must be a string"):
        settings(base_url=given)


@pytest.mark.parametrize(
    "given",
    [
        "https://user:pass-word@a.example", "https://user@a.example", "https://:pass-word@a.example",
        "https://@a.example", "https://user:pass-word@api.konko.ai", "https://api.konko.ai@evil.example",
        "https://user:pass-word@[bad", "ftp://user:pass-word@a.example", "http://user:pass-word@127.0.0.1",
        "https://api.konko.ai\\@evil.example", "sk-pass-word", "sk-pass-word\n", "https://a.example?pass-word",
    ],
)  # fmt: skip
def test_credentials_in_it_are_refused_and_not_echoed(given):
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        settings(base_url=given)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "http://api.konko.ai/v1", "http://10.0.0.1", "http://0.0.0.0:1", "http://128.0.0.1", "http://[::2]",
        "http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://evil-localhost",
        "http://2130706433", "http://127.1", "http://0x7f.0.0.1", "HTTP://a.example",
    ],
)  # fmt: skip
def test_plain_http_goes_to_loopback_only(given):
    with pytest.raises(ConfigurationError, match="plain http"):
        settings(base_url=given)
    assert settings(base_url=given, allow_http=True).base_url.lower() == given.lower()


# -- the second key --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_url",
    [
        None, "https://konko.ai", "https://api.konko.ai/v1", "https://a.b.konko.ai", "https://API.KONKO.AI",
        "https://api.konko.ai:8443/v1",
    ],
)  # fmt: skip
def test_the_openai_key_of_the_environment_goes_to_konko(base_url, monkeypatch):
    assert settings(base_url=base_url).openai_api_key is None
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    assert settings(base_url=base_url).openai_api_key.header() == "from-env"
    assert settings(base_url=base_url, openai_api_key="own").openai_api_key.header() == "own"


@pytest.mark.parametrize(
    "base_url",
    [
        "https://konko.ai.evil.com", "https://evilkonko.ai", "https://api.konko.ai.", "https://konko.ai.",
        "https://konko.aii", "https://konko.ai-evil.com", "https://api-konko.ai", "https://evil.com/konko.ai",
        "https://evil.com/.konko.ai", "https://api.konko.com", "https://konko", "https://ai",
        "http://127.0.0.1:8080/konko.ai", "http://konko.ai.localhost", "https://api.openai.com/v1",
        "https://k0nko.ai", "https://evil.com:443/api.konko.ai",
    ],
)  # fmt: skip
def test_and_to_nobody_else(base_url, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    assert settings(base_url=base_url).openai_api_key is None
    assert settings(base_url=base_url, openai_api_key="own").openai_api_key.header() == "own"


def test_not_even_to_konko_over_plain_http(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    assert settings(base_url="http://api.konko.ai", allow_http=True).openai_api_key is None


HOSTS = st.text(st.sampled_from("konko.aievil-/\\@:#?%[]_\u3002\uff0e \t"), max_size=24)


@given(HOSTS)
def test_whatever_stands_in_the_url_the_key_goes_below_konko(host):
    from yarl import URL

    try:
        url = parse_base_url(f"https://{host}")
    except ConfigurationError:
        return
    # What aiohttp will connect to is what was looked at.
    seen = URL(url.geturl(), encoded=True)
    assert (seen.host or "").lower() == url.hostname
    assert seen.user is None
    assert seen.scheme == "https"


# -- headers ---------------------------------------------------------------------------------------


def test_headers():
    assert check_headers(None) == check_headers({"X-A": None}) == {}
    assert check_headers({"X-A": "b", "x_y.z": "\u00e9\t~"}) == {"X-A": "b", "x_y.z": "\u00e9\t~"}
    assert settings(default_headers={"X-A": "b"}).headers == {"X-A": "b"}


@pytest.mark.parametrize("headers", [{"": "x"}, {"a b": "x"}, {"a:": "x"}, {"a\n": "x"}, {"\u00e9": "x"}, {5: "x"},
                                     {"\u0661": "x"}, {b"a": "x"}, {None: "x"}, [("a", "b")], "a: b"])  # fmt: skip
def test_wrong_headers(headers):
    with pytest.raises(ConfigurationError, match="header"):
        check_headers(headers)


@pytest.mark.parametrize("value", ["secret\r\nX: y", "secret\n", "secret\0", 5, b"secret"])
def test_wrong_header_values_are_named_but_not_echoed(value):
    with pytest.raises(ConfigurationError, match="header X-A") as caught:
        check_headers({"X-A": value})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [1, "yes", 0.0])
def test_trust_env_is_true_or_false(wrong):
    with pytest.raises(ConfigurationError, match="trust_env must be True or False"):
        settings(trust_env=wrong)


@pytest.mark.parametrize(
    "text", ["localhost:8000", "ftp://a.example", "a.example/v1", "//a.example"]
)
def test_a_base_url_without_its_scheme_says_which_there_are(text):
    with pytest.raises(ConfigurationError, match="must begin with http:// or https://"):
        parse_base_url(text)
