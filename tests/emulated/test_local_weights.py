"""The weights' file: put together once, never wrong, whoever else is at it."""

import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from konko_async.local._weights import cache_folder, ensure_file, is_current

CONTENT = [b"first " * 1000, b"second " * 1000, b"third"]
DIGEST = hashlib.sha256(b"".join(CONTENT)).hexdigest()


@pytest.fixture
def parts(tmp_path):
    paths = [tmp_path / f"part{number}" for number in range(len(CONTENT))]
    for path, content in zip(paths, CONTENT, strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
def target(tmp_path):
    return tmp_path / "deep" / "cache" / "model.gguf"


def _names(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_parts_become_one_file_for_its_owner_only(parts, target):
    assert ensure_file(target, parts, DIGEST) == target
    assert target.read_bytes() == b"".join(CONTENT)
    assert _names(target) == [".model.gguf.stamp", "model.gguf"]
    if os.name == "posix":
        assert target.stat().st_mode & 0o777 == 0o600
        assert target.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_start_does_not_read_it_again(parts, target):
    ensure_file(target, parts, DIGEST)
    times = target.stat().st_atime_ns, target.stat().st_mtime_ns
    # Same size and time: only reading it would tell, and that is what the stamp saves.
    target.write_bytes(b"x" * target.stat().st_size)
    os.utime(target, ns=times)
    assert is_current(target, DIGEST)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"x" * path.stat().st_size),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["other bytes", "cut short", "emptied", "deleted"],
)
def test_a_damaged_file_is_rebuilt(parts, target, damage):
    ensure_file(target, parts, DIGEST)
    status = target.stat()
    damage(target)
    if target.exists():
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    ensure_file(target, parts, DIGEST)
    assert target.read_bytes() == b"".join(CONTENT)


@pytest.mark.parametrize("stamp", [b"", b"\xff\xfe", b"{}", b'{"sha256": "0"}'])
def test_a_damaged_stamp_costs_one_reading(parts, target, stamp):
    ensure_file(target, parts, DIGEST)
    inode = target.stat().st_ino
    target.with_name(".model.gguf.stamp").write_bytes(stamp)
    ensure_file(target, parts, DIGEST)
    assert target.stat().st_ino == inode
    assert b'"size"' in target.with_name(".model.gguf.stamp").read_bytes()


def test_another_digest_is_not_taken_for_this_one(parts, target):
    ensure_file(target, parts, DIGEST)
    assert not is_current(target, "0" * 64)


def test_parts_with_another_digest_are_refused_and_leave_nothing(parts, target):
    ensure_file(target, parts, DIGEST)
    parts[1].write_bytes(b"changed")
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="expected " + DIGEST):
        ensure_file(target, parts, DIGEST)
    assert target.read_bytes() == b"old"
    assert _names(target) == [".model.gguf.stamp", "model.gguf"]


def test_what_killed_writers_left_is_cleared_away(parts, target):
    target.parent.mkdir(parents=True)
    old, new = (target.with_name(f".model.gguf.{name}.tmp") for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    ensure_file(target, parts, DIGEST)
    assert not old.exists()
    assert new.exists()  # its writer may be at work


def test_processes_at_once_all_succeed(parts, target):
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(ensure_file, target, parts, DIGEST) for _ in range(9)]
        assert {run.result() for run in runs} == {target}
    assert target.read_bytes() == b"".join(CONTENT)
    assert _names(target) == [".model.gguf.stamp", "model.gguf"]


@pytest.mark.skipif(os.name != "posix", reason="the rule of XDG")
def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "konko_async"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder().parent.parent == tmp_path or cache_folder().is_relative_to(tmp_path)
    assert Path("relative") not in cache_folder().parents
