"""A page on this machine to look at the output of a batch, also while it is written.

See docs/how-to/viewer.md, and ``konko-async view OUT``.

async with Viewer("out.jsonl") as viewer:
    print(viewer.address)
"""

from konko_async.viewer._server import Viewer, ViewerError

__all__ = ["Viewer", "ViewerError"]
