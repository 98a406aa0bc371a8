"""Suites of other people's, run in an environment of their own: `make ecosystem`.

Classes whose names end with OfOurs and OfTheirs run the same tests for both. The run fails for what
fails with ours and passes with theirs; what a small model or an emulator cannot do fails with both.
"""

import pytest

collect_ignore = []
for file, package in (
    ("test_langchain_standard.py", "langchain_tests"),
    ("test_ag_ui.py", "ag_ui"),
    ("test_kernel.py", "nbclient"),
):
    try:
        __import__(package)
    except ImportError:
        collect_ignore.append(file)

_failed = {"Ours": set(), "Theirs": set()}
_counts = {"Ours": 0, "Theirs": 0}


def _of(nodeid):
    """Return whose test it is, and what it is called without that."""
    for whose in _failed:
        if f"Of{whose}::" in nodeid:
            return whose, nodeid.replace(f"Of{whose}::", "::")
    return None, nodeid


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No key or base URL of the person who runs the tests gets into them."""
    for name in ("KONKO_API_KEY", "KONKO_BASE_URL", "KONKO_API_BASE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def pytest_runtest_logreport(report):
    whose, name = _of(report.nodeid)
    if whose is not None:
        _counts[whose] += report.when == "call" and report.passed
        if report.failed:
            _failed[whose].add(name)


def pytest_terminal_summary(terminalreporter):
    write = terminalreporter.write_line
    for whose, failed in _failed.items():
        write(f"{whose}: {_counts[whose]} passed, {len(failed)} failed")
    for name in sorted(_failed["Ours"] & _failed["Theirs"]):
        write(f"fails with both: {name}")
    for name in sorted(_failed["Ours"] - _failed["Theirs"]):
        write(f"fails with ours only: {name}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    paired = _failed["Ours"] | _failed["Theirs"]
    if exitstatus == 1 and len(paired) and not _failed["Ours"] - _failed["Theirs"]:
        others = session.testsfailed - sum(map(len, _failed.values()))
        session.exitstatus = 1 if others else 0
