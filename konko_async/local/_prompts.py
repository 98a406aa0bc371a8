"""What makes a base model answer: a chat template and worked examples.

A base model only continues text. The template therefore writes the conversation as a document
of the kind whose next line is the answer, and the engine stops at the end of that line.
"""

from typing import Any

from konko_async.local._text import condense

# A user's message that ends with a colon is continued as it stands, so that callers can bring
# examples in a form of their own (as `summary_messages` does). Any other is put as a question,
# after a few answered ones. The answer stands on a line of its own: after "Assistant: " every
# answer would begin with a space.
CHAT_TEMPLATE = """\
{%- set own = namespace(form=false) -%}
{%- for message in messages -%}
{%- if message.role == 'user' and (message.content or '').endswith(':') -%}
{%- set own.form = true -%}
{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'system' or message.role == 'developer' -%}
{{- (message.content or '') + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if not own.form -%}
{{- 'A helpful assistant answers each question in one short paragraph.\\n\\n' -}}
{{- 'User: Hello!\\nAssistant:\\nHello! How can I help you?\\n\\n' -}}
{{- 'User: What is the capital of Japan?\\nAssistant:\\nThe capital of Japan is Tokyo.\\n\\n' -}}
{{- 'User: What is a compiler?\\nAssistant:\\nA compiler is a program that translates source ' -}}
{{- 'code into instructions for a machine.\\n\\n' -}}
{{- 'User: Name three colours.\\nAssistant:\\nRed, green and blue.\\n\\n' -}}
{{- 'User: Why is the sky blue?\\nAssistant:\\nThe air scatters sunlight, and it scatters blue ' -}}
{{- 'light more than red light. That is why the sky looks blue during the day.\\n\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{- (message.content or '') + '\\n\\n' -}}
{%- elif message.role == 'user' and (message.content or '').endswith(':') -%}
{{- message.content + '\\n' -}}
{%- elif message.role != 'system' and message.role != 'developer' -%}
{{- 'User: ' + (message.content or '') + '\\nAssistant:\\n' -}}
{%- endif -%}
{%- endfor -%}
"""

CHAT_STOP = ["\n"]

SUMMARY_OPTIONS: dict[str, Any] = {
    "temperature": 0,
    "max_tokens": 40,
    # The end of the sentence, or of what the model copies from a text that was cut.
    "stop": ["\n", ".\n", ". ", " ..."],
}
"""What to pass to ``chat.completions.create`` along with :func:`summary_messages`."""

# Invented documents, so that no summary of a real one is given away. The answers keep close to
# the words of the text: examples that rephrase made this model invent.
_EXAMPLES = (
    (
        (
            "Meadow Road Library Terms of membership, 4 May 2009 Anyone who lives or works in the"
            " county may join free of charge. A member may borrow up to eight items for three"
            " weeks. Lost items are charged at the price of a new copy."
        ),
        "The terms of membership of Meadow Road Library",
    ),
    (
        (
            "mailqueue for Debian This package installs a daemon that accepts mail while the"
            " network is down and sends it on later. After installation, edit /etc/mailqueue.conf"
            " and set the name of your relay host; then restart the service."
        ),
        "Notes on the Debian package of a daemon that sends mail on when the network is back",
    ),
    (
        (
            "THE LANTERN LICENCE Version 2 Copyright (c) The Lantern Authors. You may use, copy and"
            " change this software for any purpose without fee, as long as this notice stays in all"
            " copies. THE SOFTWARE COMES WITHOUT WARRANTY OF ANY KIND."
        ),
        "The Lantern Licence, version 2, which allows use, copies and changes of software",
    ),
    (
        (
            "gustmap 3.1 Draw maps of wind and weather from the command line. Why another one? We"
            " needed something that works without a display. - Reads GRIB and NetCDF files. -"
            " Writes PNG, SVG or animated GIF images. Thanks to our sponsors!"
        ),
        "A command-line tool that draws maps of wind and weather",
    ),
    (
        (
            "Frequently asked questions about the clock server. Q. Why is the time wrong after a"
            " restart? A. The server needs up to ten minutes to find its sources. Q. Can I use it"
            " without a network? A. Yes, with a radio receiver; see clock.conf(5)."
        ),
        "Answers to common questions about the clock server",
    ),
    (
        (
            'Brickwork Introduction from brickwork import Wall wall = Wall(rows=3) wall.add("red")'
            " Brickwork is a pytest plugin which checks that every test leaves the database as it"
            " found it. It names the test which did not."
        ),
        "A pytest plugin which checks that every test leaves the database as it found it",
    ),
    (
        (
            "parcelport If you want to know why this exists, read the announcement. Parcelport is a"
            " fast asynchronous client and server for the PARCEL protocol, written in C with"
            " bindings for Python. It works with any event loop. Please report bugs to the tracker."
        ),
        "A fast asynchronous client and server for the PARCEL protocol",
    ),
    (
        (
            "tidepool Documentation Source code Chat tidepool is a disk cache for slow Python"
            " functions. It keeps their results, keyed by the arguments, for as long as you choose."
            " Installation pip install tidepool Usage Wrap any function with the cache decorator."
        ),
        "A disk cache for slow Python functions",
    ),
)


def summary_messages(text: str, *, max_chars: int = 280) -> list[dict[str, str]]:
    """Return chat messages that make the local model say in one sentence what ``text`` is.

    Pass them with :data:`SUMMARY_OPTIONS`. Markup is removed first, and only the opening of the
    text is shown: this model gets worse, not better, with more to read.

    Args:
        text: A document: plain text, Markdown, reStructuredText or HTML, of any length.
        max_chars: Characters of it that the model gets to read. The default fits into the
            context of :class:`LocalServer` in any script; a character is at most 4 tokens.

    Returns:
        Worked examples as earlier turns, then the text.
    """
    messages: list[dict[str, str]] = []
    for document, summary in _EXAMPLES:
        messages += (_question(document), {"role": "assistant", "content": summary})
    return [*messages, _question(condense(text, max_chars))]


def _question(document: str) -> dict[str, str]:
    return {"role": "user", "content": f"Text: {document}\nSummary:"}
