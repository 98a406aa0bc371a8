"""An LLM and embeddings for LlamaIndex (extra ``llama-index``).

    llm = Konko(model="codellama/codellama-13b-instruct")
    print(await llm.acomplete("Write a haiku about sockets."))

``Konko`` takes the place of that of ``llama-index-llms-konko``. See docs/how-to/frameworks.md.
"""

from konko_async.integrations.llama_index._embedding import KonkoEmbedding
from konko_async.integrations.llama_index._llm import Konko

__all__ = ["Konko", "KonkoEmbedding"]
