"""Softmax attention over what a keep leaves visible."""
