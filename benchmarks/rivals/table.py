"""Who takes part, and in which environment."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Rival:
    """One way of reading answers.

    Attributes:
        name: what it is called in orders and results.
        label: what it is called in tables and plots.
        short: what it is called in ratios.
        module: the module of this package.
        mode: what its ``make()`` gets.
        env: its environment is ``.venv-bench-<env>``; empty: the one of the harness.
    """

    name: str
    label: str
    short: str
    module: str
    mode: str = ""
    env: str = ""

    def python(self) -> str:
        """Return its interpreter."""
        if not self.env:
            return sys.executable
        return str(ROOT / f".venv-bench-{self.env}" / "bin" / "python")

    def ready(self) -> bool:
        """Whether its environment is there."""
        return Path(self.python()).exists()


RIVALS = {
    rival.name: rival
    for rival in (
        Rival("ours", "konko_async, everything on", "ours", "ours", "chunks"),
        Rival("ours_text", "konko_async text(), everything on", "ours, text()", "ours", "text"),
        Rival("ours_plain", "konko_async, plain", "ours, plain", "ours", "plain"),
        Rival("hand", "hand-written aiohttp + msgspec", "hand-written", "hand"),
        Rival(
            "hand_tenacity",
            "hand-written + tenacity",
            "hand-written + tenacity",
            "hand",
            "tenacity",
        ),
        Rival("floor", "floor: bytes counted", "floor", "floor"),
        Rival("pyreqwest", "pyreqwest + msgspec", "pyreqwest", "pyreqwest_hand"),
        Rival("openai", "openai (httpx2)", "openai", "openai_sdk", env="openai"),
        Rival(
            "openai_aiohttp",
            "openai + aiohttp",
            "openai + aiohttp",
            "openai_sdk",
            "aiohttp",
            env="openai",
        ),
        Rival("konko", "konko 0.5.0", "konko 0.5.0", "konko_sdk", env="konko"),
        Rival("litellm", "litellm", "litellm", "litellm_sdk", env="litellm"),
    )
}
