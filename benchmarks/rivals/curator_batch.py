"""A batch by bespokelabs-curator, in an environment of its own: see ``bench_outages``.

python curator_batch.py BASE_URL ROWS CONCURRENCY FOLDER
"""

import json
import os
import pathlib
import sys

import litellm.litellm_core_utils

base_url, rows, concurrency, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.environ.update({
    "TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1", "CURATOR_CACHE_DIR": folder,
    "CURATOR_DISABLE_RICH_DISPLAY": "1", "OPENAI_API_KEY": "any",
    # Its counting of tokens loads a vocabulary from the net; litellm, which it needs, has a copy.
    "TIKTOKEN_CACHE_DIR": str(pathlib.Path(litellm.litellm_core_utils.__path__[0], "tokenizers")),
})  # fmt: skip

from bespokelabs import curator  # noqa: E402 - reads the environment
from datasets import Dataset  # noqa: E402 - reads the environment


class Asked(curator.LLM):
    def prompt(self, row):
        return row["text"]

    def parse(self, row, answer):
        return {"text": row["text"], "answer": answer}


def main():
    model = Asked(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={
            "base_url": base_url,
            "max_concurrent_requests": concurrency,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
            "require_all_responses": False,
        },
    )
    try:
        model(Dataset.from_list([{"text": f"row {number}"} for number in range(rows)]))
    finally:
        # What it keeps of a run: a line per row that it has asked.
        answered = set()
        for path in pathlib.Path(folder).rglob("responses_*.jsonl"):
            for line in path.read_text(encoding="utf-8").splitlines():
                kept = json.loads(line)
                if not kept.get("response_errors") and kept.get("response_message"):
                    answered.add(kept["generic_request"]["original_row"]["text"])
        status = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        print(json.dumps({"answered": len(answered), "peak": peak / 1000}), flush=True)


if __name__ == "__main__":
    main()
