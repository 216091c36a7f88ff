"""A small language and a compiler for hybrid sequence models.

    import mixerlang

    model = mixerlang.load("specs/tiny/lalte.mix")        # a torch.nn.Module
    graph, diagnostics = mixerlang.build_graph("specs/paper/lalte_400m.mix")
    print(mixerlang.analyze(graph, batch=1, length=4096).total)

Only `load` and `load_folder` import torch, and nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analysis import analyze
    from .api import compile
    from .errors import FolderError, MixerlangError, SpecError
    from .pipeline import build_graph, check
    from .runtime.load import load, load_folder
    from .version import VERSION as __version__

_HOMES = {
    "FolderError": "errors",
    "MixerlangError": "errors",
    "SpecError": "errors",
    "analyze": "analysis",
    "build_graph": "pipeline",
    "check": "pipeline",
    "compile": "api",
    "load": "runtime.load",
    "load_folder": "runtime.load",
}

__all__ = [
    "FolderError",
    "MixerlangError",
    "SpecError",
    "__version__",
    "analyze",
    "build_graph",
    "check",
    "compile",
    "load",
    "load_folder",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .version import VERSION

        return VERSION
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
