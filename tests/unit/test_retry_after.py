"""parse_retry_after: what servers send, and what they had better not send."""

import math
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async._http.retry_after import parse_retry_after

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("3.", 3.0),
        ("1" + "0" * 30, 1e30),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30.0),
        ("Sun Mar  1 12:00:30 2026", 30.0),
        ("Sun, 01 Mar 2026 13:00:30 +0100", 30.0),
        ("Sun, 01 Mar 2026 11:59:00 GMT", 0.0),
    ],
)
def test_seconds_and_dates(value, seconds):
    assert parse_retry_after({"retry-after": value}, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "inf", "Infinity", "nan", "-1", "-0.1", "+1", "1_000", "0x10", "1e3", "1,5", "12s", "soon", ".",
        "١٢", "9" * 400, "Sat, 01 Jan 100000 00:00:00 GMT", "Sun, 99 Foo 2026 12:00:30 GMT",
        "Sun, 01 Mar 2026 25:00:30 GMT", "\x00", "0" * 100,
    ],
)  # fmt: skip
def test_garbage_is_ignored(value):
    assert parse_retry_after({"retry-after": value}, NOW) is None
    assert parse_retry_after({"retry-after-ms": value}, NOW) is None
    assert parse_retry_after({"retry-after-ms": value, "retry-after": "2"}, NOW) == 2.0


def test_nothing_given():
    assert parse_retry_after({}, NOW) is None


def test_milliseconds_win():
    assert parse_retry_after({"retry-after-ms": "250"}, NOW) == 0.25
    assert parse_retry_after({"retry-after-ms": "250", "retry-after": "9"}, NOW) == 0.25


def test_a_date_is_not_milliseconds():
    headers = {"retry-after-ms": "Sun, 01 Mar 2026 12:00:30 GMT"}
    assert parse_retry_after(headers, NOW) is None


def test_a_date_is_compared_with_the_servers_clock_where_it_is_told():
    headers = {
        "retry-after": "Sun, 01 Mar 2026 12:00:30 GMT",
        "date": "Sun, 01 Mar 2026 12:00:10 GMT",
    }
    assert parse_retry_after(headers, NOW - 86400) == 20.0
    assert parse_retry_after({**headers, "date": "garbage"}, NOW) == 30.0


HEADER = st.one_of(
    st.text(),
    st.text(alphabet="0123456789.eE+-_infanNAINF "),
    st.floats().map(str),
    st.integers().map(str),
    st.from_regex(
        r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,7} [0-9:]{1,9}( GMT| [+-][0-9]{1,5}|)"
    ),
)


@given(HEADER, HEADER, HEADER)
def test_it_never_fails_and_never_gives_nonsense(milliseconds, seconds, date):
    headers = {"retry-after-ms": milliseconds, "retry-after": seconds, "date": date}
    wait = parse_retry_after(headers, NOW)
    assert wait is None or (math.isfinite(wait) and wait >= 0)


@given(st.integers(-(10**9), 2 * 10**11))
def test_every_http_date_is_read(timestamp):
    moment = datetime.fromtimestamp(timestamp, UTC)
    wait = parse_retry_after({"retry-after": format_datetime(moment, usegmt=True)}, NOW)
    assert wait == max(0.0, moment.timestamp() - NOW)
