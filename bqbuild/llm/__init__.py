"""Providers of LLM calls, and the client that keeps within their limits."""
