"""What models cost, from the graph alone: no torch, no accelerator."""

from .data import as_json
from .fits import fitting, fitting_line
from .metrics import COUNTS, METRICS, PASSES, Cost
from .page import page
from .report import BACKENDS, BYTES, SCHEMA, Analysis, LayerCost, analyze
from .roofline import Latency, latency_on
from .sharding import Plan, sharding_lines
from .table import formula_lines, markup, table
from .times import time_lines
from .units import size_of

__all__ = [
    "BACKENDS",
    "BYTES",
    "COUNTS",
    "METRICS",
    "PASSES",
    "SCHEMA",
    "Analysis",
    "Cost",
    "Latency",
    "LayerCost",
    "Plan",
    "analyze",
    "as_json",
    "fitting",
    "fitting_line",
    "formula_lines",
    "latency_on",
    "markup",
    "page",
    "sharding_lines",
    "size_of",
    "table",
    "time_lines",
]
