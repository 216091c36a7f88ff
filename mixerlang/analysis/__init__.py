"""What models cost, from the graph alone: no torch, no accelerator."""

from .report import BACKENDS, BYTES, SCHEMA, Analysis, Cost, LayerCost, analyze
from .table import table

__all__ = ["BACKENDS", "BYTES", "SCHEMA", "Analysis", "Cost", "LayerCost", "analyze", "table"]
