"""Checked equations as a mixer: a point of the space of `recurrence(...)`, else a scan."""

from __future__ import annotations

from collections.abc import Mapping

from ...primitives import recurrence as r
from ...primitives.scan import SHARED, Rule, RuleOperand, RuleState, Scan
from .body import Body, needed_names
from .declared import Operand
from .point import Point
from .text import contractions, equation, spoken


def point(base: r.Recurrence, found: Point, decays: Mapping[str, r.Decay]) -> r.Recurrence:
    """The named form of a point."""
    update: r.Update = r.Additive(step=found.step == "step", gate=found.step == "gate")
    if found.update == "delta":
        update = r.Delta(scale=float(found.scale))
    return base.replace(
        update=update,
        decay=decays[found.decay] if found.decay else r.NoDecay(),
        normalizer="sum" if found.normalize else "none",
        skip=found.skip,
    )


def scan(
    name: str, base: r.Recurrence, body: Body, decays: Mapping[str, r.Decay], ones: frozenset[str]
) -> Scan:
    """The equations as they are, token by token, without what the output does not depend on."""
    needed = needed_names(body.lines)
    lines = [line for line in body.lines if line.target in needed]
    rule = Rule(
        name=name,
        states=tuple(
            RuleState(name=spoken(state), axes=axes)
            for state, axes in body.found.states.items()
            if state in needed
        ),
        operands=tuple(_operands(body, needed - ones, decays, base.keys == "complement")),
        lines=tuple(equation(line, ones) for line in lines),
        contractions=contractions(lines),
    )
    return Scan(rule=rule, origin=base.origin, **{name: getattr(base, name) for name in SHARED})


def _operands(
    body: Body, needed: set[str], decays: Mapping[str, r.Decay], complement: bool
) -> list[RuleOperand]:
    """Those that are read, and the decay that others are made of, which comes first."""
    if "dt" in needed or (complement and "k" in needed):
        needed = needed | {"a"}
    operands = sorted(
        (each for name, each in body.found.operands.items() if name in needed),
        key=lambda each: each.name != "a",
    )
    return [_operand(each, decays, complement) for each in operands]


def _operand(each: Operand, decays: Mapping[str, r.Decay], complement: bool) -> RuleOperand:
    made = "complement" if complement and each.name == "k" else each.made
    decay = decays[each.name] if made == "decay" else r.NoDecay()
    return RuleOperand(name=spoken(each.name), made=made, axes=each.axes, decay=decay)
