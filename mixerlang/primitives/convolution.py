"""The convolution primitive: a causal depthwise convolution over time."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..algebra import Count
from .base import Mixer
from .part import Part, Workload, depthwise


class Convolution(Mixer):
    """activation(causal depthwise convolution(x)), one filter per channel."""

    word: ClassVar[str] = "convolution"

    kernel: Annotated[int, Field(ge=1, le=65_536)] = Field(4, description="Taps, own included.")
    activation: Literal["none", "silu", "gelu"] = Field("none", description="After the filter.")
    bias: bool = Field(False, description="Whether a bias per channel is learned.")

    def parameters(self, width: int) -> int:
        return width * (self.kernel + self.bias)

    def parts(self, width: int, work: Workload) -> list[Part]:
        saved = 0 if self.activation == "none" else width
        return [depthwise("convolution", work, width, self.kernel, saved=saved)]

    def cache_bytes(self, width: int, work: Workload) -> Count:
        return work.batch * (self.kernel - 1) * width * work.bytes_per_element
