"""Exact piecewise expressions: what a cost is as a function of batch and lengths.

Cost formulas are written once, for integers and for expressions alike: with +, -, * and //, and
with the functions here in place of `min`, `max` and conditions.
"""

from .expression import (
    Count,
    Expr,
    at,
    ceil_div,
    exact_div,
    greatest,
    least,
    number,
    power_of_two,
    reached,
    symbol,
)
from .regimes import Regime, order, regimes, simplified
from .solve import crossings, longest
from .spelling import code, pretty

__all__ = [
    "Count",
    "Expr",
    "Regime",
    "at",
    "ceil_div",
    "code",
    "crossings",
    "exact_div",
    "greatest",
    "least",
    "longest",
    "number",
    "order",
    "power_of_two",
    "pretty",
    "reached",
    "regimes",
    "simplified",
    "symbol",
]
