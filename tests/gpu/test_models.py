"""Whole models on a GPU through the kernels, against the same in plain PyTorch and float64."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mixerlang
from mixerlang.nn.backend import forced

pytestmark = pytest.mark.gpu

SPECS = sorted((Path(__file__).resolve().parents[2] / "specs/tiny").glob("*.mix"))
LTE = next(spec for spec in SPECS if spec.stem == "lalte")


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def made(spec: Path, dtype: str, **params: Any) -> nn.Module:
    """A model whose scorers choose, and drop nothing out."""
    model = mixerlang.load(spec, device="cuda", dtype=dtype, seed=0, params=params or None)
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if hasattr(module, "cnn"):
            module.cnn = replace(module.cnn, dropout=0.0)
            module.dropout.p = 0.0
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.data.copy_(0.5 * noise)
    return model.train()


def tokens(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator).cuda()


def outcome(model: nn.Module, way: str, **call: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and gradients, the scores' own loss among them."""
    model.zero_grad()
    with forced(way):
        logits, aux = model(return_aux=True, **call)
        loss = logits.double().square().mean()
        for report in aux.values():
            if "score" in report:
                kept = report["score"].relu() * report["final"][:, None]
                loss = loss + kept.double().mean()
        loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), {name: gradient.double() for name, gradient in found.items()}


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-9))


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("packed", [False, True], ids=["rows", "packed"])
def test_float32_against_float64(spec: Path, training: bool, packed: bool) -> None:
    call: dict[str, Any] = {"tokens": tokens(2, 150)}
    if packed:
        ends = torch.tensor([0, 1, 130, 300], device="cuda")
        call = {"tokens": tokens(1, 300), "cu_seqlens": ends}
    wide, model = made(spec, "float64").train(training), made(spec, "float32").train(training)
    wide.load_state_dict(model.state_dict())
    wanted, wanted_gradients = outcome(wide, "eager", **call)
    got, gradients = outcome(model, "kernels", **call)
    torch.testing.assert_close(got.double(), wanted, atol=1e-4, rtol=1e-4)
    assert gradients.keys() == wanted_gradients.keys()
    for name, gradient in gradients.items():
        assert error(gradient, wanted_gradients[name]) < 1e-3, name


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_bfloat16_is_no_worse_than_plain_pytorch(spec: Path) -> None:
    """Where candidates are near 0 or each other either may choose otherwise than float64."""
    call = {"tokens": tokens(2, 150)}
    wide, model = made(spec, "float64"), made(spec, "bfloat16")
    wide.load_state_dict(model.state_dict())
    wanted, wanted_gradients = outcome(wide, "eager", **call)
    plain, plain_gradients = outcome(model, "eager", **call)
    got, gradients = outcome(model, "kernels", **call)
    assert error(got, wanted) < 2e-2 + 1.5 * error(plain, wanted)
    for name, gradient in gradients.items():
        wanted_gradient = wanted_gradients[name]
        plain_error = error(plain_gradients[name], wanted_gradient)
        assert error(gradient, wanted_gradient) < 3e-2 + 2 * plain_error, name


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
@torch.no_grad()
def test_chunks_and_steps_are_the_forward_pass(spec: Path) -> None:
    """In float32, from a cache of the kernels wherever there is one."""
    model = made(spec, "float32").eval()
    batch = tokens(2, 203)
    wanted = model(batch)
    for sizes in ([50, 1, 60, 5, 7, 80], [1] * 120 + [83], [203], [8] * 25 + [3]):
        cache = model.new_cache(2, max_length=210)
        parts = [model(part, cache=cache) for part in batch.split(sizes, dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), wanted, atol=1e-4, rtol=1e-4)
    ends = torch.tensor([0, 90, 91, 203], device="cuda")
    alone = [model(row) for row in batch[:1].split([90, 1, 112], dim=1)]
    cache = model.new_cache(3, max_length=210)
    got = model(batch[:1], cu_seqlens=ends, cache=cache)
    torch.testing.assert_close(got, torch.cat(alone, 1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rollback() -> None:
    """Steps of several tokens of which some are taken back: attention alone can."""
    spec = next(spec for spec in SPECS if spec.stem == "transformer")
    model = made(spec, "float32").eval()
    batch = tokens(3, 60)
    cache = model.new_cache(3, max_length=64)
    model(batch[:, :40], cache=cache)
    for start in range(40, 56, 3):
        wrong = (batch[:, start + 3 : start + 6] + 1) % 256
        model(torch.cat([batch[:, start : start + 3], wrong], 1), cache=cache)
        cache.rollback(wrong.shape[1])
    got = model(batch[:, 58:], cache=cache)
    torch.testing.assert_close(got, model(batch)[:, 58:], atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------------------- generation


def lively(spec: Path) -> nn.Module:
    """A model whose greedy tokens differ: freshly drawn ones say the same again and again."""
    model = made(spec, "float32")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embedding" not in name:
                parameter.mul_(5)
    return model


def stepping(model: nn.Module) -> ModuleType:
    """The module of a model's own folder."""
    package = type(model).__module__.rpartition(".")[0]
    return importlib.import_module(f"{package}.nn.stepping")


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "top_k": 50, "top_p": 0.9}], ids=str)
def test_graphs_generate_the_same(
    spec: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively(spec)
    prompts = [tokens(n, seed=n).tolist() for n in (70, 3, 41)]
    calls = [(prompts, 40, 1), (prompts, 20, 1), (prompts[::-1], 30, 2), (prompts[:1], 20, 3)]
    module = stepping(model)
    captured = [model.generate(p, n, seed=seed, **options) for p, n, seed in calls]
    assert len(set(captured[0][0])) > 5
    if spec.stem in ("full", "transformer", "swa", "lalte", "gdn"):
        assert model in module._kept, "nothing was captured"
    monkeypatch.setattr(module, "WORTH", 10**9)
    assert [model.generate(p, n, seed=seed, **options) for p, n, seed in calls] == captured


def test_a_graph_is_made_anew_for_other_weights() -> None:
    model = lively(LTE)
    prompt = tokens(1, 20)
    first = model.generate(prompt, 20)
    kept = stepping(model)._kept[model]
    assert model.generate(prompt, 20) == first
    assert stepping(model)._kept[model] is kept
    with torch.no_grad():
        model.embedding.weight.mul_(-1.5)
    second = model.generate(prompt, 20)
    assert stepping(model)._kept[model] is not kept
    assert second != first


@pytest.mark.parametrize("in_place", [True, False])
def test_weights_may_change_between_steps(
    in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walk(model: nn.Module) -> list[int]:
        found = []
        for step in model.stream(tokens(1, 20), 40):
            found.append(step[0])
            if len(found) == 20:
                with torch.no_grad():
                    for parameter in model.parameters():
                        if in_place:
                            parameter.mul_(-1.5)
                        else:
                            parameter.data = parameter * -1.5
        return found

    model = lively(LTE)
    captured = walk(model)
    assert model in stepping(model)._kept, "nothing was captured"
    other = lively(LTE)
    monkeypatch.setattr(stepping(other), "WORTH", 10**9)
    assert walk(other) == captured


def test_two_streams_at_once() -> None:
    model = lively(LTE)
    prompts = [tokens(1, n, seed=n) for n in (9, 33)]
    wanted = [model.generate(prompt, 25)[0] for prompt in prompts]
    both = zip(*(model.stream(prompt, 25) for prompt in prompts), strict=True)
    rows = [[step[0] for step in pair] for pair in both]
    assert [list(column) for column in zip(*rows, strict=True)] == wanted


def test_a_stream_waits_for_no_step_but_its_own() -> None:
    """`eos` ends a row, and the others go on."""
    model = lively(LTE)
    prompts = [tokens(n, seed=n).tolist() for n in (5, 17)]
    free = model.generate(prompts, 30)
    eos = free[0][10]
    for row, whole in zip(model.generate(prompts, 30, eos=eos), free, strict=True):
        assert row == (whole[: whole.index(eos) + 1] if eos in whole else whole)
