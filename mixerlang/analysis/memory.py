"""Bytes of a whole model: kept for backward, and at the peak of training and of decoding."""

from __future__ import annotations

from ..algebra import Count, greatest
from ..ir.graph import Graph
from ..primitives.part import Workload
from .metrics import Cost

MOMENTS = 2
"""Numbers per parameter that AdamW keeps, of the parameters' dtype as torch has it."""


def memory(graph: Graph, layers: list[Cost], total: Cost, work: Workload) -> dict[str, Count]:
    """By key of the JSON object.

    Training: weights, gradients, AdamW's moments, what is kept for backward, and the logits.
    Checkpointed: of each layer its input is kept, and one layer at a time runs again. Decode:
    weights and cache, and the logits of a token per sequence.
    """
    element, tokens = work.bytes_per_element, work.tokens
    weights = element * total.parameters
    stream = element * tokens * graph.fields.dim
    kept = total["activation_bytes"]
    in_layers = Cost.sum(layers)["activation_bytes"]
    widest: Count = 0
    for own in dict.fromkeys(layer["activation_bytes"] for layer in layers):
        widest = greatest(widest, own)
    checkpointed = kept - in_layers + len(layers) * stream + widest
    state = (2 + MOMENTS) * weights
    logits = logit_bytes(graph, element, work.kernels)
    serving = weights + total["cache_bytes"] + work.batch * logits
    return {
        "activation_bytes_checkpointed": checkpointed,
        "peak_bytes.training": state + kept + logits * tokens,
        "peak_bytes.training_checkpointed": state + checkpointed + logits * tokens,
        "peak_bytes.decode": serving,
    }


def logit_bytes(graph: Graph, element: int, kernels: bool) -> int:
    """Of a token: logits and their gradient, in plain PyTorch both again in float32."""
    return 2 * (element + (0 if kernels else 4)) * graph.fields.vocab
