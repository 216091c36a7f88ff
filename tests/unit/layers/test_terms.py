"""The layers take what the terms of the language say: names, arguments, defaults, parameters."""

from __future__ import annotations

import inspect
from math import log

import pytest
import torch

from mixerlang.nn.decay import ScalarDecay
from mixerlang.nn.features import HedgehogMap
from mixerlang.primitives import convolution, ffn, norm, pointwise, recurrence
from mixerlang.primitives.base import Op, Term

WRITTEN_OUT = {"Add", "Multiply", "ScaleBy", "Concat", "Activation"}
"""Ops without weights or mode: an expression of the model, no layer."""


def terms():
    """What the language can say here; the bases of each kind, which name it, left out."""
    rooms = (recurrence, convolution, ffn, pointwise)
    found = [
        term
        for room in rooms
        for term in vars(room).values()
        if inspect.isclass(term) and issubclass(term, Term) and term.__module__ == room.__name__
        and "kind" not in vars(term) and term.__name__ not in WRITTEN_OUT
    ]  # fmt: skip
    return [*found, norm.Rope, norm.Alibi]


@pytest.mark.parametrize("term", terms(), ids=lambda term: term.__name__)
def test_a_layer_has_the_arguments_of_its_term(term, class_of, value_of):
    fields = {n: f for n, f in term.model_fields.items() if n not in {"origin", *term.spec_only}}
    parameters = dict(inspect.signature(class_of(term.model_construct())).parameters)
    if issubclass(term, Op):
        assert next(iter(parameters)) == "dim"
        del parameters["dim"]
    assert set(parameters) == set(fields)
    for name, field in fields.items():
        required = field.is_required()
        default = None if required else value_of(field.get_default(call_default_factory=True))
        if parameters[name].default is inspect.Parameter.empty:
            assert default is None, f"{name} is left out of the text when it is the term's default"
        else:
            assert parameters[name].default == default


LAYERS = [
    convolution.Convolution(kernel=5, activation="silu", bias=True),
    convolution.Convolution(),
    ffn.SwiGLU(multiple_of=16),
    ffn.Mlp(activation="relu2"),
    ffn.Mlp(hidden=10, bias=True),
    pointwise.Linear(),
    pointwise.Linear(out=5, bias=True),
    pointwise.Gate(),
    pointwise.Scale(init=0.1),
    pointwise.Dropout(p=0.5),
    pointwise.WeightedSum(init=(0.5, 0.25)),
    pointwise.GatedSum(streams=3),
]


@pytest.mark.parametrize("term", LAYERS, ids=repr)
def test_parameters(term, layer_of, bound):
    layer = layer_of(term, 12)
    assert sum(p.numel() for p in layer.parameters()) == bound(term, 12).parameters(12)


@pytest.mark.parametrize(
    "term",
    [
        recurrence.Recurrence(heads=2, decay=decay, update=update, features=features, output=output,
                              conv=conv, value_heads=value_heads, skip=skip)
        for decay in (recurrence.Fixed(), recurrence.Scalar(), recurrence.Vector(),
                      recurrence.Vector(form="softplus", rank=3))
        for update in (recurrence.Additive(), recurrence.Delta())
        for features in (recurrence.Silu(), recurrence.Compose(parts=(recurrence.L2Norm(),)))
        for output in (recurrence.PlainOutput(), recurrence.GatedRMSNorm(rank=2))
        for conv, value_heads, skip in ((0, None, False), (3, 4, True))
    ],
    ids=repr,
)  # fmt: skip
def test_parameters_of_recurrences(term, layer_of, bound):
    with torch.device("meta"):
        layer = layer_of(term, 12)
    assert sum(p.numel() for p in layer.parameters()) == bound(term, 12).parameters(12)


def test_published_starts():
    torch.manual_seed(0)
    decay = ScalarDecay(4, heads=1000)
    assert 0 <= decay.A_log.min() < 0.1 < 2.7 < decay.A_log.max() <= log(16)
    step = torch.nn.functional.softplus(decay.dt_bias)
    assert 1e-3 <= step.min() + 1e-8 < 1.1e-3 < 0.09 < step.max() <= 0.1 + 1e-6
    assert step.log().mean().item() == pytest.approx(log(1e-2), abs=0.1)
    assert torch.equal(HedgehogMap(2, 3).weight, torch.eye(3).expand(2, 3, 3))
