"""Rotary position embeddings, with the norm of queries and keys that may stand before them."""
