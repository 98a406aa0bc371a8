"""``konko-async chat``: one question, or a conversation on a terminal."""
