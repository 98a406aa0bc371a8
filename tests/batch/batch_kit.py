"""What the tests of batches share."""

import json
import os

from konko_async.batch import Filesystem, run_batch

MODEL = "codellama/codellama-13b-instruct"


def line(number, *, text=None, **changes):
    """One row of OpenAI's batch format."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text or f"row {number}"}],
        "max_tokens": 8,
    }
    row = {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions"}
    return {**row, "body": body, **changes}


def write(path, rows):
    """Write rows (dicts, or bytes as they are) as lines."""
    data = b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    path.write_bytes(data + b"\n" if data else b"")
    return path


def read(path):
    """Read the lines of an output; each must be whole."""
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return [json.loads(text) for text in data.splitlines()]


def ids(path):
    """The ids in an output, sorted by number."""
    return sorted((row["custom_id"] for row in read(path)), key=lambda name: int(name[3:]))


def content(row):
    return row["response"]["body"]["choices"][0]["message"]["content"]


def asked(emulator):
    """How often each prompt was sent."""
    found = {}
    for record in emulator.requests:
        if record.body:
            text = record.body["messages"][-1]["content"]
            found[text] = found.get(text, 0) + 1
    return found


async def run(client, source, output, **options):
    """run_batch() without a look at the model list."""
    options.setdefault("prices", {})
    return await run_batch(client, source, output, **options)


class FaultyFiles(Filesystem):
    """Fails on demand.

    Args:
        write_at: number of the write, from 0, to fail.
        fsync_at: number of the fsync to fail.
        short: how many bytes the failing write takes before it fails; None: none.
        error: errno.
        only: only for files whose path ends so.
    """

    def __init__(self, *, write_at=None, fsync_at=None, short=None, error=28, only=""):
        self.write_at, self.fsync_at, self.short, self.error, self.only = (
            write_at, fsync_at, short, error, only,
        )  # fmt: skip
        self.writes = self.fsyncs = 0
        self.after_failure = []
        self.failed = False
        self._paths = {}

    def open(self, path, flags):
        descriptor = super().open(path, flags)
        self._paths[descriptor] = path
        return descriptor

    def write(self, descriptor, data):
        if self.failed:
            self.after_failure.append(("write", self._paths.get(descriptor)))
        if self._paths.get(descriptor, "").endswith(self.only):
            self.writes += 1
            if self.writes - 1 == self.write_at:
                if self.short:
                    self.write_at += 1
                    size, self.short = self.short, None
                    return super().write(descriptor, bytes(data[:size]))
                self.failed = True
                raise OSError(self.error, os.strerror(self.error))
        return super().write(descriptor, data)

    def fsync(self, descriptor):
        if self.failed:
            self.after_failure.append(("fsync", self._paths.get(descriptor)))
        if self._paths.get(descriptor, "").endswith(self.only):
            self.fsyncs += 1
            if self.fsyncs - 1 == self.fsync_at:
                self.failed = True
                raise OSError(self.error, os.strerror(self.error))
        super().fsync(descriptor)
