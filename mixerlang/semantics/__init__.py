"""Names, types, parameters and expansion: from syntax to resolved models."""

from .project import Project, open_project, open_text, split_spec
from .resolved import ResolvedLayer, ResolvedModel

__all__ = ["Project", "ResolvedLayer", "ResolvedModel", "open_project", "open_text", "split_spec"]
