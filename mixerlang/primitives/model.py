"""The fields of a model, and the ops that stand around its layers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Op, Term
from .ffn import Ffn, SwiGLU
from .norm import Norm, RMSNorm
from .part import Part, Workload, elementwise, linear

Size = Annotated[int, Field(ge=1, lt=2**31)]


class Init(Term):
    kind: ClassVar[str] = "init"


class Normal(Init):
    """Linear maps and embeddings from N(0, std^2), biases zero."""

    word: ClassVar[str] = "normal"
    std: float = Field(0.02, gt=0, le=10, description="Standard deviation.")
    rescale: bool = Field(
        True,
        description="Divide projections into the residual stream by sqrt(2 * layers) (GPT-2).",
    )


class ModelFields(Term):
    """What `model name { ... }` may say."""

    kind: ClassVar[str] = "model"
    word: ClassVar[str] = "model"

    vocab: Size = Field(description="Tokens of the vocabulary.")
    dim: Size = Field(description="Channels of the residual stream.")
    context: Size = Field(description="Tokens of a training sequence.")
    norm: Norm | None = Field(default_factory=RMSNorm, description="Norm inside blocks; or none.")
    ffn: Ffn | None = Field(default_factory=SwiGLU, description="Ffn of every layer; or none.")
    final_norm: Norm | None = Field(None, description="Before the head; default norm.")
    tie_embeddings: bool = Field(False, description="The head uses the embedding's weight.")
    embedding_scale: float = Field(1.0, gt=0, description="Multiplies the embeddings.")
    logit_scale: float = Field(1.0, gt=0, description="Multiplies the logits.")
    logit_softcap: float | None = Field(
        None, gt=0, description="Logits become softcap * tanh(logit / softcap)."
    )
    init: Init = Field(default_factory=Normal, description="How weights start.")
    dropout: float = Field(0.0, ge=0, lt=1, description="On the embeddings, in training.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of the weights when none is asked for at load."
    )


class Embedding(Op):
    """Token ids to rows of a (vocab, dim) table, times `scale`."""

    kind: ClassVar[str] = "embedding"
    vocab: Size
    dim: Size
    scale: float = 1.0
    dropout: float = 0.0

    def output_width(self, *widths: int) -> int:
        return self.dim

    def keeps_inputs(self) -> bool:
        return False

    def parameters(self, width: int) -> int:
        return self.vocab * self.dim

    def parts(self, width: int, work: Workload) -> list[Part]:
        """Kept for backward: the ids, and which channels were dropped."""
        saved = work.tokens * (8 + (self.dim if self.dropout else 0))
        return [elementwise("rows", work, self.dim, self.dim, saved=saved)]


class Head(Op):
    """Logits; with `tied` through the embedding's table."""

    kind: ClassVar[str] = "head"
    vocab: Size
    tied: bool = False
    scale: float = 1.0
    softcap: float | None = None

    def output_width(self, *widths: int) -> int:
        return self.vocab

    def parameters(self, width: int) -> int:
        return 0 if self.tied else self.vocab * width

    def parts(self, width: int, work: Workload) -> list[Part]:
        """A softcap keeps the tanh of the logits for backward."""
        logits = work.bytes_per_element * work.tokens * self.vocab
        kept = logits if self.softcap is not None else 0
        return [linear("logits", work, width, self.vocab, saved=kept)]
