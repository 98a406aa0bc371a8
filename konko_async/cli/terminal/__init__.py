"""Drawing on a terminal: Markdown that grows, columns, and the part of the screen that changes."""
