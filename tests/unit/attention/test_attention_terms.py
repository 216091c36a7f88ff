"""The layers take what the terms of the language say: names, arguments, defaults, parameters."""

from __future__ import annotations

import inspect

import pytest
import torch

from mixerlang.nn import attention, keeps, norm, position
from mixerlang.primitives import attention as attention_term
from mixerlang.primitives import keep as k
from mixerlang.primitives import norm as norm_terms
from mixerlang.primitives.base import Op, Term, Workload

ROOMS = (attention, keeps, norm, position)
ABSTRACT = {k.Keep, k.Scorer, k.SummaryMap, norm_terms.Norm, norm_terms.Position}
NOT_READY = {"kv", "weights"}
"""`reuse` of an earlier layer: the compiler refuses it, so no layer takes it."""


def layer_class(term_class):
    return next(
        getattr(room, term_class.__name__) for room in ROOMS if hasattr(room, term_class.__name__)
    )


def made(value):
    """An argument of a term as generated code writes it: only what is not the default."""
    if isinstance(value, tuple):
        return tuple(map(made, value))
    if not isinstance(value, Term):
        return value
    fields = type(value).model_fields
    arguments = {
        name: made(argument)
        for name, argument in value.arguments().items()
        if fields[name].is_required()
        or argument != fields[name].get_default(call_default_factory=True)
    }
    return layer_class(type(value))(**arguments)


def terms():
    rooms = [(k, k.__name__), (norm_terms, norm_terms.__name__)]
    found = [
        term
        for room, name in rooms
        for term in vars(room).values()
        if inspect.isclass(term) and issubclass(term, Term) and term.__module__ == name
    ]
    return [t for t in found if t not in ABSTRACT and t.ready] + [attention_term.Attention]


def test_all_are_there():
    assert {term.__name__ for term in terms()} >= {"Full", "Learned", "Rope", "LayerNorm"}


@pytest.mark.parametrize("term", terms(), ids=lambda term: term.__name__)
def test_arguments(term):
    fields = {n: f for n, f in term.model_fields.items() if n not in {"origin", *NOT_READY}}
    parameters = dict(inspect.signature(layer_class(term)).parameters)
    if issubclass(term, Op):
        assert next(iter(parameters)) == "dim"
        del parameters["dim"]
    assert list(parameters) == list(fields)
    for name, field in fields.items():
        if field.is_required():
            assert parameters[name].default is inspect.Parameter.empty
        else:
            default = made(field.get_default(call_default_factory=True))
            assert parameters[name].default == default


LTE = k.Union(parts=(k.Window(size=9), k.Learned(budget=7)))
SMALL = k.Union(
    parts=(
        k.Window(size=9),
        k.Learned(budget=7, sinks=0, scorer=k.Cnn(kernels=(3, 5), dilations=(1, 2))),
    )
)
MLP = k.Compressed(size=4, stride=2, map=k.MlpMap(expand=2))
KEEPS = [
    k.Full(),
    LTE,
    SMALL,
    k.Compressed(size=4),
    MLP,
    k.Blocks(size=3, top=4, score="mlp"),
    k.Union(parts=(k.Window(size=4), k.Evict(policy="norm", budget=3))),
    k.Intersection(parts=(k.Blocks(size=4, top=3), k.Strided(stride=3))),
    k.GatedKeep(parts=(MLP, k.Blocks(size=4, top=3, score="compressed"), k.Window(size=5))),
    k.GatedKeep(parts=(SMALL, k.Evict(policy="tova", budget=6), k.Dilated(size=2, rate=3))),
    k.ByHead(keeps=(SMALL, k.Window(size=3), SMALL)),
    k.ByHead(keeps=(k.Sinks(count=2), *[k.Blocks(size=3, top=4, score="mlp")] * 2)),
]
OPTIONS = [
    {"heads": 6, "kv_heads": 3, "head_dim": 8, "value_dim": 5, "keep": keep} for keep in KEEPS
] + [
    {"heads": 6},
    {"heads": 3, "bias": True, "gate": True, "sink_logits": True, "position": None},
    {"heads": 4, "kv_heads": 2, "qk_norm": norm_terms.RMSNorm(eps=1e-5), "scale": 0.5},
    {"heads": 4, "qk_norm": norm_terms.LayerNorm(bias=False), "position": norm_terms.Alibi()},
]


def bound(options):
    def report(code, span, message, *, help=None):
        raise AssertionError(f"{code}: {message}")

    term = attention_term.Attention(**options)
    term.check(report)
    return term.bind(24, report)


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_parameters_and_bytes(options):
    term = bound(options)
    arguments = {
        name: made(value) for name, value in term.arguments().items() if name not in NOT_READY
    }
    layer = attention.Attention(24, **arguments)
    assert sum(p.numel() for p in layer.parameters()) == term.parameters(24)
    for length in (1, 8, 50):
        state = layer.new_state(2, length, torch.float32, torch.device("cpu"))
        bytes_held = sum(tensor.nbytes for tensor in state.values())
        assert bytes_held == term.cache_bytes(24, Workload(2, length, bytes_per_element=4))


def test_starts_again_from_meta():
    options = {"heads": 6, "keep": SMALL, "sink_logits": True, "qk_norm": norm_terms.RMSNorm()}
    term = bound(options | {"head_dim": 8})
    arguments = {n: made(v) for n, v in term.arguments().items() if n not in NOT_READY}
    with torch.device("meta"):
        layer = attention.Attention(24, **arguments)
    layer.to_empty(device="cpu")
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    for module in reversed(list(layer.modules())):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert all(p.isfinite().all() for p in layer.parameters())
    assert (layer.sink_logits == 0).all() and (layer.branches[0].scorer.proj.bias == 0.5).all()


def test_norms():
    x = torch.randn(3, 8)
    rms = norm.RMSNorm(8, eps=1e-3)
    torch.testing.assert_close(rms(x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt())
    layer = norm.LayerNorm(8)
    centred = x - x.mean(-1, keepdim=True)
    wanted = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(layer(x), wanted)
    for own in (rms, layer):
        half = own.bfloat16()(x.bfloat16() * 1000)
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), own.float()(x * 1000), rtol=0.02, atol=0.02)
    assert norm.LayerNorm(4, bias=False).sized(6).bias is None
