"""Text to AST, and back in order: `parse` and `format_source`."""

from . import ast
from .formatter import format_source
from .parser import parse

__all__ = ["ast", "format_source", "parse"]
