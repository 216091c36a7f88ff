"""What models cost, from the graph alone: no torch, no accelerator."""

from .data import as_json
from .metrics import COUNTS, METRICS, PASSES, Cost
from .report import BACKENDS, BYTES, SCHEMA, Analysis, LayerCost, analyze
from .table import formula_lines, table

__all__ = ["BACKENDS", "BYTES", "COUNTS", "METRICS", "PASSES", "SCHEMA", "Analysis", "Cost",
           "LayerCost", "analyze", "as_json", "formula_lines", "table"]
