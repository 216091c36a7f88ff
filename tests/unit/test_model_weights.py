"""Weights of generated models: init, names, counts, the meta device, safetensors."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from mixerlang.nn.model import Model
from mixerlang.pipeline import build_graph
from mixerlang.runtime.load import load

ROOT = Path(__file__).parents[2]
TINY = sorted((ROOT / "specs" / "tiny").glob("*.mix"))
PAPER = sorted((ROOT / "specs" / "paper").glob("*.mix"))

TIES = """
model ties {
  vocab = 31; dim = 16; context = 64; ffn = swiglu(hidden=24)
  let a = tied(attention(2, keep=window(5)))
  let l = tied(layer(gated_deltanet(2, head_dim=8)))
  layers = [l, a, l, a, attention(2), l, a]
}
"""

EVERY_INIT = """
block all(mixer, ffn) {
  h = mixer(norm(x))
  x += scale(h, init=0.3) * gate(x)
  x += ffn(norm(x))
}
model inits {
  vocab = 31; dim = 16; context = 64; norm = layernorm; ffn = mlp(gelu, bias=true); block = all
  let keep = gated(compressed(4, stride=2, map=mlp), blocks(4, top=3, score=mlp), window(5))
  layers = [
    mean(attention(2, keep=window(8) | learned(budget=4), bias=true, sink_logits=true),
         mamba2(2, head_dim=8, state=6), learned=true),
    hedgehog(2, head_dim=8), kda(2, head_dim=8), gla(2, key_dim=6, value_dim=10, rank=4),
    attention(2, keep=keep, qk_norm=rmsnorm), convolution(3, bias=true),
  ]
}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))


def model_of(text: str, folder: Path, **options: object) -> Model:
    (folder / "spec.mix").write_text(text)
    return load(folder / "spec.mix", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [*TINY, *PAPER], ids=lambda path: path.stem)
def test_parameters_are_those_of_the_graph(spec: Path) -> None:
    """On the meta device, in a moment whatever the size."""
    graph, _ = build_graph(spec)
    assert graph is not None
    model = load(spec, device="meta")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.num_parameters() == graph.parameters()
    for layer, info in zip(model.layers, graph.layers, strict=True):
        assert isinstance(layer, nn.Module)
        wanted = {
            graph[id].name: graph[id].op.parameters(graph.width(graph[id])) for id in info.nodes
        }
        for name, module in layer.named_children():
            assert sum(p.numel() for p in module.parameters()) == wanted[name]


def test_names_are_stable() -> None:
    names = set(load(ROOT / "specs/tiny/lalte.mix").state_dict())
    assert names > {
        "embedding.weight",
        "layers.0.norm1.weight",
        "layers.3.mixer.q_proj.weight",
        "layers.3.mixer.o_proj.weight",
        "layers.3.norm2.weight",
        "layers.3.ffn.down_proj.weight",
        "final_norm.weight",
    }
    assert "head.weight" not in names
    assert "head.weight" in load(ROOT / "specs/paper/lalte_1400m.mix", device="meta").state_dict()


def test_linear_maps_start_normal_and_rescaled(tmp_path: Path) -> None:
    text = "init = normal(std=0.05); layers = [gated_deltanet(4, head_dim=32)] * 8"
    head = "model m { vocab = 500; dim = 128; context = 8; ffn = mlp(gelu, bias=true);"
    model = model_of(f"{head} {text} }}", tmp_path, seed=0)
    wanted = {"o_proj": 0.05 / sqrt(16), "down_proj": 0.05 / sqrt(16)}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            std = wanted.get(name.rpartition(".")[2], 0.05)
            assert module.weight.std().item() == pytest.approx(std, rel=0.12), name
            if isinstance(module, nn.Linear) and module.bias is not None:
                assert not module.bias.any()
    flat = model_of(f"{head} init = normal(0.05, rescale=false); "
                    "layers = [gated_deltanet(4, head_dim=32)] }", tmp_path, seed=0)  # fmt: skip
    assert flat.layers[0].mixer.o_proj.weight.std().item() == pytest.approx(0.05, rel=0.12)


def test_scorers_and_decays_keep_their_own_init() -> None:
    model = load(ROOT / "specs/tiny/lalte.mix", seed=0)
    state = model.state_dict()
    assert (state["layers.1.mixer.branches.0.scorer.proj.bias"] == 0.5).all()
    assert state["layers.1.mixer.branches.0.scorer.convs.0.weight"].std() > 0.04
    assert (state["layers.0.mixer.decay.A_log"] >= 0).all()
    assert state["layers.0.mixer.q_conv.weight"].abs().max() > 0.3


def test_the_seed_decides_and_leaves_no_trace(tmp_path: Path) -> None:
    spec = ROOT / "specs/tiny/lalte.mix"
    before = torch.get_rng_state()
    first, again, other = load(spec, seed=3), load(spec, seed=3), load(spec, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert equal(first, again) and not equal(first, other)
    torch.manual_seed(3)
    assert equal(first, load(spec))


def equal(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("text", [TIES, EVERY_INIT], ids=["ties", "inits"])
def test_materialised_from_meta(text: str, tmp_path: Path) -> None:
    """to_empty and reset_parameters set every weight, and as construction would."""
    model = model_of(text, tmp_path, device="meta").to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(torch.nan)
    torch.manual_seed(5)
    model.reset_parameters()
    for name, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), name
    built = model_of(text, tmp_path, seed=5)
    torch.manual_seed(5)
    built.reset_parameters()
    assert equal(model, built)
    ids = torch.arange(20).view(2, 10)
    torch.testing.assert_close(model.eval()(ids), built.eval()(ids))


@pytest.mark.parametrize("text", [TIES, EVERY_INIT], ids=["ties", "inits"])
def test_save_and_load(text: str, tmp_path: Path) -> None:
    model = model_of(text, tmp_path, seed=0)
    path = tmp_path / "weights.safetensors"
    model.save(path)
    assert sum(t.numel() for t in load_file(path).values()) == model.num_parameters()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "spec.mix", path.name]
    other = model_of(text, tmp_path, seed=1)
    assert not equal(model, other)
    assert other.load(path) is other
    assert equal(model, other)
    third = model_of(text, tmp_path, seed=2)
    load_model(third, path)  # safetensors' own reader takes it too
    assert equal(model, third)


def test_load_takes_what_safetensors_saves_and_other_dtypes(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    model = model_of(TIES, tmp_path, seed=0, dtype="bfloat16")
    assert model.embedding.weight.dtype == torch.bfloat16
    save_model(model, str(tmp_path / "w"))
    other = model_of(TIES, tmp_path, seed=1).load(tmp_path / "w")
    assert other.embedding.weight.dtype == torch.float32
    assert equal(model.float(), other)


def broken(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    if how == "lacks":
        del state["final_norm.weight"]
    elif how == "holds unknown":
        state["extra"] = torch.zeros(1)
    else:
        state["final_norm.weight"] = torch.zeros(3)
    return state


@pytest.mark.parametrize("how", ["lacks", "holds unknown", "holds other shapes for"])
def test_load_names_what_does_not_fit_and_changes_nothing(how: str, tmp_path: Path) -> None:
    model = model_of(TIES, tmp_path, seed=0)
    model.save(tmp_path / "w")
    save_file(broken(load_file(tmp_path / "w"), how), tmp_path / "w")
    other = model_of(TIES, tmp_path, seed=1)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match=f"{how} .*(final_norm.weight|extra)"):
        other.load(tmp_path / "w")
    assert all(torch.equal(before[n], t) for n, t in other.state_dict().items())


def test_load_wants_weights_to_write_into(tmp_path: Path) -> None:
    model_of(TIES, tmp_path).save(tmp_path / "w")
    with pytest.raises(ValueError, match="meta device"):
        model_of(TIES, tmp_path, device="meta").load(tmp_path / "w")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TIES, tmp_path)
    (tmp_path / "w").write_bytes(b"old")

    def fail(*args: object, **kwargs: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "spec.mix", "w"]


def test_ties_are_one_module(tmp_path: Path) -> None:
    model = model_of(TIES, tmp_path)
    layers = list(model.layers)
    assert layers[0] is layers[2] is layers[5]
    assert layers[1] is not layers[3]
    assert layers[1].mixer is layers[3].mixer is layers[6].mixer
    assert layers[4].mixer is not layers[1].mixer
    assert layers[1].ffn is not layers[3].ffn
