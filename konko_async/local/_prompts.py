"""What makes a base model answer: the chat template and the worked examples."""

from typing import Any

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ message.role }}: {{ message.content }}
{% endfor -%}
{%- if add_generation_prompt %}assistant:{% endif -%}
"""

SUMMARY_OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 64, "stop": ["\n"]}


def summary_messages(text: str) -> list[dict[str, str]]:
    """Draft."""
    return [{"role": "user", "content": f"Text: {text}\nOne-sentence summary:"}]
