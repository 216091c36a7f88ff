"""What models cost, from the graph alone: no torch, no accelerator."""

from .report import BYTES, SCHEMA, Analysis, Cost, LayerCost, analyze
from .table import table

__all__ = ["BYTES", "SCHEMA", "Analysis", "Cost", "LayerCost", "analyze", "table"]
