"""Conversations as files: whatever was said is read again as it was."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async.cli.chat.conversation import Conversation
from konko_async.cli.chat.saved_conversations import NotSaved, load, path_of, save

pieces = st.sampled_from(
    [
        *("a", "\n", "\n\n## You\n\n", "<!-- konko-async:0 ", "konko-async:1 ", "-->", "\r\n", " "),
        *(
            '{"role": "user"} -->',
            "日本語",
            "\x00",
            "\u2028",
            "\n\n## Answer\n\n",
            "```\n",
            "\ufeff",
        ),
    ]
)
texts = st.lists(pieces, min_size=1, max_size=6).map("".join)
conversations = st.builds(
    lambda system, said: (system, said),
    st.none() | texts,
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), min_size=1, max_size=5),
)


@given(parts=conversations, model=st.sampled_from(["a/b", "x --> y", "é"]))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("suffix", ["md", "json"])
def test_what_is_saved_is_loaded(tmp_path_factory, suffix, parts, model):
    system, said = parts
    conversation = Conversation(system, {"temperature": 0.5, "stop": ["-->"]})
    conversation.said = [{"role": role, "content": text} for role, text in said]
    path = tmp_path_factory.mktemp("saved") / f"talk.{suffix}"
    save(path, model, conversation, overwrite=False)
    saved = load(path)
    assert [(m.role, m.content) for m in saved.messages] == [
        (m["role"], m["content"]) for m in conversation.messages
    ]
    assert (saved.model, saved.parameters) == (model, conversation.parameters)


@pytest.mark.parametrize(
    "text",
    [
        *("", "# a page", "{", "[]", "{}", '{"messages": []}', '{"messages": [{"role": "user"}]}'),
        '[{"role": "wizard", "content": "x"}]',
        "<!-- konko-async:0 {} -->",
        '<!-- konko-async:0 {"model": 1} -->\n\n## You\n\n<!-- konko-async:0 {"role": "user"} -->\nx\n',
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(NotSaved, match="conversation"):
        load(path)


def test_messages_of_openais_format_are_loaded(tmp_path):
    path = tmp_path / "messages.json"
    path.write_text(json.dumps([{"role": "user", "content": "hi", "name": "me"}]))
    assert [message.content for message in load(path).messages] == ["hi"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "talk.md"
    link = tmp_path / "link.md"
    link.symlink_to(path)
    conversation = Conversation(None, {})
    conversation.ask("hi")
    path.write_text("before")
    with pytest.raises(FileExistsError):
        save(link, "m", conversation, overwrite=False)
    assert path.read_text() == "before"
    save(link, "m", conversation, overwrite=True)
    assert link.is_symlink()
    assert load(path).messages[0].content == "hi"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["link.md", "talk.md"]


def test_what_is_not_text_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NotSaved, match="not UTF-8"):
        load(path)
    with pytest.raises(NotSaved):
        path_of("~nobody-of-this-name/file")
