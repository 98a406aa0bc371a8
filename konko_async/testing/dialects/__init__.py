"""Draws servers' dialects, answers and cuts of their bytes from a seed, to test clients with.

```python
for seed in range(1000):
    drawn = draw(seed)
    completion = my_client_reads(drawn.reads)
    assert drawn.meaning.problem_with(completion) is None
```

`DIALECTS` holds the dialects that have a name; `Emulator(dialect="gemini")` speaks one.
"""

from konko_async.testing.dialects._dialect import ServerDialect
from konko_async.testing.dialects._draw import DrawnStream, cut, draw, shrunk
from konko_async.testing.dialects._errors import ERROR_SHAPES
from konko_async.testing.dialects._meaning import Meaning, MeantCall, MeantChoice, understood
from konko_async.testing.dialects._named import DIALECTS, dialect_named

__all__ = [
    "DIALECTS",
    "ERROR_SHAPES",
    "DrawnStream",
    "Meaning",
    "MeantCall",
    "MeantChoice",
    "ServerDialect",
    "cut",
    "dialect_named",
    "draw",
    "shrunk",
    "understood",
]
