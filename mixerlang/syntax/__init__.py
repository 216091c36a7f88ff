"""Text to AST, and back in order: `parse` and `format_source`."""

from . import ast
from .parser import parse

__all__ = ["ast", "parse"]
