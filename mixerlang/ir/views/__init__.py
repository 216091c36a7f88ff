"""A graph for the eye: a tree for the terminal, Mermaid for documents, SVG for anything else."""

from .data import as_json, digest
from .mermaid import mermaid
from .svg import svg
from .tree import tree

__all__ = ["as_json", "digest", "mermaid", "svg", "tree"]
