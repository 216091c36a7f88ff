"""The typed graph, its verification, and the passes over it."""

from .graph import Graph, LayerInfo, Node, TensorType

__all__ = ["Graph", "LayerInfo", "Node", "TensorType"]
