"""What the public face adds to the stages: exceptions in place of diagnostics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .codegen.compile import compile_spec
from .codegen.folder import write_folder
from .errors import SpecError


def compile(
    spec: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    params: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the model of "file.mix" or "file.mix:model" as a folder that runs with torch alone.

    params: values for the params of the model. root: the folder that imports stay in. Raises
    SpecError where the spec has errors, or the directory holds anything but an older output.
    """
    compiled, diagnostics = compile_spec(spec, params, root)
    if compiled is None:
        raise SpecError(diagnostics)
    refused = write_folder(compiled.files, directory)
    if refused.errors:
        raise SpecError(refused)
    return Path(directory)
