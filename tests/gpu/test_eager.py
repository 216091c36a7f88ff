"""The eager backend on a GPU: the same numbers as on the CPU, training and generation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mixerlang

pytestmark = pytest.mark.gpu

SPECS = sorted((Path(__file__).resolve().parents[2] / "specs/tiny").glob("*.mix"))


@pytest.fixture(autouse=True)
def full_precision() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_same_as_cpu(spec: Path) -> None:
    """Logits and every gradient of the float64 model."""
    models = [mixerlang.load(spec, device=d, dtype="float64", seed=0) for d in ("cpu", "cuda")]
    models[1].load_state_dict(models[0].state_dict())
    tokens = torch.randint(0, 256, (2, 100), generator=torch.Generator().manual_seed(0))
    for model in models:
        model.eval()
    wanted, got = (model(tokens.to(next(model.parameters()).device)) for model in models)
    torch.testing.assert_close(got.cpu(), wanted, atol=1e-9, rtol=1e-9)
    for out in (wanted, got):
        out.square().mean().backward()
    for (name, one), (_, other) in zip(
        models[0].named_parameters(), models[1].named_parameters(), strict=True
    ):
        if one.grad is None or other.grad is None:
            assert one.grad is None and other.grad is None, name
            continue
        torch.testing.assert_close(other.grad.cpu(), one.grad, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_trains_and_generates_in_bf16(spec: Path) -> None:
    model = mixerlang.load(spec, device="cuda", dtype="bfloat16", seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(0, 256, (4, 129), device="cuda")
    losses = []
    for _ in range(8):
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), tokens[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval()
    prompts = [tokens[0, :5].tolist(), tokens[1, :40].tolist()]
    out = model.generate(prompts, max_new_tokens=50)
    assert [len(ids) for ids in out] == [50, 50]
