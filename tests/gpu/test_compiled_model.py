"""torch.compile(fullgraph=True) of a whole model with its kernels, forward and backward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mixerlang

pytestmark = [
    pytest.mark.gpu,
    # Inductor's own: calls that torch deprecates, and its advice to trade bits for speed.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32:UserWarning"),
]

SPECS = Path(__file__).resolve().parents[2] / "specs/tiny"
ATTENTIONS = """
model attentions {
  vocab = 256; dim = 64; context = 256; ffn = swiglu(hidden=96)
  let lte = attention(2, keep=window(24) | learned(16, sinks=2, scorer=cnn(dropout=0)))
  layers = [attention(2), attention(4, kv_heads=2, qk_norm=rmsnorm, keep=window(9) | sinks(2)), lte]
}
"""


def outcome(model: nn.Module, run: nn.Module, tokens: Tensor) -> list[Tensor]:
    """Logits and gradients."""
    model.zero_grad()
    torch.manual_seed(0)
    logits, aux = run(tokens, return_aux=True)
    loss = logits.square().mean()
    for report in aux.values():
        if "score" in report:
            loss = loss + report["score"].relu().mean()
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [logits.detach(), *gradients]


@pytest.mark.parametrize("name", ["attentions", "lalte"])
def test_the_same_in_one_graph(name: str, tmp_path: Path) -> None:
    spec = SPECS / f"{name}.mix"
    if name == "attentions":
        spec = tmp_path / "attentions.mix"
        spec.write_text(ATTENTIONS)
    model = mixerlang.load(spec, device="cuda", dtype="float32", seed=0)
    if name == "lalte":  # the compiler draws its seeds from another generator
        model.eval()
    tokens = torch.randint(0, 256, (2, 129), device="cuda")
    wanted = outcome(model, model, tokens)
    found = outcome(model, torch.compile(model, fullgraph=True), tokens)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
