"""Running generated models."""
