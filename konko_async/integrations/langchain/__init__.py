"""Chat models and embeddings for LangChain (extra ``langchain``).

    model = ChatKonko(model="codellama/codellama-13b-instruct", temperature=0)
    message = await model.ainvoke("Write a haiku about sockets.")

See docs/how-to/frameworks.md.
"""

from konko_async.integrations.langchain._chat import ChatKonko
from konko_async.integrations.langchain._embeddings import KonkoEmbeddings

__all__ = ["ChatKonko", "KonkoEmbeddings"]
