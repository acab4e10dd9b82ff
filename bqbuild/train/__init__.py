"""Training and evaluation of causal language models."""
