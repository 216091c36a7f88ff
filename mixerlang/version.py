"""The version of this package, as pyproject.toml gives it."""

VERSION = "0.1.0"
