"""What this machine is set to: versions, the key, the address, proxies. Nothing is sent."""

from __future__ import annotations

import os
import platform
import ssl
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from konko_async import AsyncKonko, ConfigurationError, __version__
from konko_async.cli._output import error_line
from konko_async.cli.doctor.finding import Finding, failed, fine, skipped, warned

__all__ = ["check_fast_path", "check_key", "check_proxies", "check_url", "check_versions"]

_KEY: Final = "KONKO_API_KEY"
_URLS: Final = ("KONKO_BASE_URL", "KONKO_API_BASE")
_PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_PACKAGES: Final = ("aiohttp", "msgspec", "tenacity", "aiolimiter", "uvloop")
_PLACEHOLDERS: Final = ("your", "xxx", "<", "changeme", "...", "sk-...")
_QUOTES: Final = "\"'"


def check_versions() -> Finding:
    """Return what runs here."""
    found = {"konko-async": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["OpenSSL"] = ssl.OPENSSL_VERSION.split()[1]
    found["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    text = ", ".join(f"{name} {value}" for name, value in found.items() if name != "system")
    return fine("versions", f"{text}, {found['system']}", **found)


def check_key(*, local: bool) -> Finding:
    """Look at the key's form; it is never shown."""
    if local:
        return skipped("key", "the local model has a key of its own")
    key = os.environ.get(_KEY)
    if not key or not key.strip():
        state = "empty" if key is not None else "not set"
        return failed("key", f"{_KEY} is {state}", f"export {_KEY}=... with your key of the server")
    bare = key.strip()
    if wrong := _broken(bare):
        return failed("key", *wrong)
    if any(bare.lower().startswith(word) for word in _PLACEHOLDERS):
        return warned("key", f"{_KEY} looks like a placeholder", "put your real key there")
    if bare != key:
        return warned(
            "key", f"{_KEY} has white space around it, which is left out", "set it without"
        )
    return fine("key", f"{_KEY} is set ({len(bare)} characters)", length=len(bare))


def _broken(key: str) -> tuple[str, str] | None:
    """Return what is wrong with a key's form, and what to do; None if nothing is."""
    if key[0] in _QUOTES or key[-1] in _QUOTES:
        return (
            f"{_KEY} has quotation marks in it",
            "leave the quotes out: env files and Docker do not take them off",
        )
    if not key.isascii() or not key.isprintable():
        return (
            f"{_KEY} holds characters that no key has (a line break, a typographic quote?)",
            "copy the key again, without what stands around it",
        )
    if " " in key or key.lower().startswith("bearer"):
        return f"{_KEY} holds more than a key", 'give the key alone, without "Bearer"'
    return None


def check_url(given: str | None, *, local: bool, allow_http: bool) -> tuple[Finding, str | None]:
    """Return where the server is, and which setting says so; None: that cannot be used."""
    if local:
        return skipped("base_url", "the local model is started for this"), None
    source = "--base-url" if given else next((n for n in _URLS if os.environ.get(n)), "the default")
    try:
        # With any key, as one that is missing is a finding of its own. No I/O is done here.
        client = AsyncKonko("any", given, allow_http=allow_http)
    except ConfigurationError as error:
        advice = f"correct {source}: it is an address such as https://host/v1"
        return failed("base_url", f"{source}: {error_line(error)}", advice), None
    url = client.base_url
    details = {"base_url": url, "source": source}
    if "/v1" not in url and source != "the default":
        found = f"{url} (from {source}) does not end with /v1, as most servers' addresses do"
        return warned("base_url", found, "look whether /v1 is missing", **details), url
    return fine("base_url", f"{url} (from {source})", **details), url


def check_proxies() -> Finding:
    """Return the proxies of the environment; the client does not use them by itself."""
    names = [name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
    if not names:
        return fine("proxies", "no proxy variables are set")
    return warned(
        "proxies",
        f"{', '.join(names)} is set, and not used: connections are made directly",
        "if the outside is reached by a proxy only, write AsyncKonko(trust_env=True) in your code",
        variables=names,
    )


def check_fast_path(client: AsyncKonko) -> Finding:
    """Return whether the client's fast way to its connections is in use."""
    if client.pool.fast_path:
        return fine("fast_path", "in use", used=True)
    if os.environ.get("KONKO_ASYNC_FAST_PATH") == "0":
        why, advice = "KONKO_ASYNC_FAST_PATH=0 switches it off", "unset it, unless that is intended"
    else:
        why = f"aiohttp {version('aiohttp')} is not known, or patched by another package"
        advice = "nothing breaks; calls cost more CPU. Use a release of aiohttp from 3.12.15 on"
    return warned("fast_path", f"not in use: {why}", advice, used=False)
