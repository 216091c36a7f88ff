"""What scripts that run kernels in Triton's interpreter share."""

from __future__ import annotations

from typing import Any

from triton.runtime import interpreter


def accept_new_numpy() -> None:
    """Loop bounds are arrays of one element there, which numpy >= 2.4 no longer turns into int."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
