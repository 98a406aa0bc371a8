"""Documents of many formats as Markdown, and text in parts that fit a model (extra ``docs``).

for found in read_documents(["notes.md", "papers/"]):
    parts = split_text(found.text, 6000)
"""

from konko_async.documents._document import Document, DocumentError
from konko_async.documents._find import find_files
from konko_async.documents._formats import SUFFIXES
from konko_async.documents._read import read_documents, read_file
from konko_async.documents._split import split_text

__all__ = [
    "SUFFIXES",
    "Document",
    "DocumentError",
    "find_files",
    "read_documents",
    "read_file",
    "split_text",
]
