"""Streams of llama.cpp's own server that are cut by ``kill -9``; a few of ``make resume-storm``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "soak"))
from resumestorm import storm

pytestmark = pytest.mark.local_model


async def test_texts_are_whole_though_their_servers_are_killed():
    found = await storm(2, seed=3)
    assert found["cuts"] >= 2
