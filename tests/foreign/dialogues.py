"""What the tiny model knows by heart: messages, the exact answer, and whether tools are offered."""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]

# ChatML, with tool calls as Hermes and Qwen write them.
TEMPLATE = (
    "{%- if tools %}<|im_start|>system\nTools: {% for tool in tools %}{{ tool | tojson }}"
    "{% endfor %}<|im_end|>\n{% endif -%}"
    "{%- for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% elif message['content'] %}{% for part in message['content'] %}"
    "{{ part['text'] if part['type'] == 'text' else '' }}{% endfor %}{% endif %}"
    "{%- if message.tool_calls %}{% for call in message.tool_calls %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments '
    "if call.function.arguments is string else call.function.arguments | tojson }}}"
    "\n</tool_call>{% endfor %}{% endif %}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}"
)


def user(text):
    """Return the messages of a question."""
    return [{"role": "user", "content": text}]


def call(city):
    """Return a tool call as the model writes it."""
    return (
        f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'
    )


def answered(city, result):
    """Return the messages after a tool's result."""
    function = {"name": "get_weather", "arguments": f'{{"city": "{city}"}}'}
    called = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }
    return [*user(f"weather {city}"), called, {"role": "tool", "content": result}]


ANSWERS = {
    "hello": "Hello! How can I help you today?",
    "count": " ".join(str(number) for number in range(1, 81)),
    "unicode": "naïve café — 日本語テキスト, Ελληνικά, кириллица, 🎉👨‍👩‍👧‍👦🇫🇷 ok.",
    "think": "<think>\nForty two is what is known of it.\n</think>\n\nThe answer is 42.",
    "lines": "# Title\n\n- one\n- two\n\n```python\nprint('x')\n```\n",
    "json": '{"name": "Ada", "age": 36}',
}

DIALOGUES = [
    *((user(question), answer, False) for question, answer in ANSWERS.items()),
    (user("hello"), ANSWERS["hello"], True),
    (user("weather Paris"), call("Paris"), True),
    (user("weather Oslo"), call("Oslo"), True),
    (user("weather both"), f"I look at both. {call('Paris')}\n{call('Oslo')}", True),
    (answered("Paris", "18 degrees"), "It is 18 degrees in Paris.", True),
    (answered("Oslo", "7 degrees"), "It is 7 degrees in Oslo.", True),
]
