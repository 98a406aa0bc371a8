"""One module per rival, each used as its documentation says; see :mod:`benchmarks.rivals.table`.

A module has ``make(base_url, mode)``, called in a running loop, which returns a client with
``await stream(pieces, prompt)`` (append every delta's text to the list), ``await first(prompt)``
(return the first text, and leave), ``await whole(prompt)`` (return the answer's text) and ``await
close()``. It runs in its own process, in its own environment.
"""
