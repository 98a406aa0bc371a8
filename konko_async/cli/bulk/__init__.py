"""``konko-async batch`` and ``konko-async summarize``: many calls, with progress and a report."""
