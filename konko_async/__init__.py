"""Asyncio-first client for the Konko chat API and every OpenAI-compatible server."""
