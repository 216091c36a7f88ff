"""What is told of a node, a layer and a model, by the keys of the JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..algebra import Count

COUNTS = ("useful", "executed", "dense")
"""useful: masked pairs and padding left out. executed: what the kernels run on a GPU, rounded up
to their tiles, with what they compute again; dense where there is no kernel. dense: what plain
PyTorch runs, as FlopCounterMode counts it. A multiply-add is two; norms and softmax count none."""

PASSES = ("forward", "training", "backward", "step")
"""forward: new tokens without a cache, under eval(). training: the same under train(). backward: of
a training step, that forward pass left out. step: one more token per sequence after a cache."""

METRICS: dict[str, str] = {
    "parameters": "",
    **{f"flops.{name}.{count}": "FLOPs" for name in PASSES for count in COUNTS},
    **{f"bytes.{name}.{way}": "bytes" for name in ("forward", "step")
       for way in ("read", "written")},
    "activation_bytes": "bytes",
    "cache_bytes": "bytes",
    "cache_bound_bytes": "bytes",
}  # fmt: skip
"""Units by key. bytes.*: of passes that take each of their tensors once. activation_bytes: kept
for backward. cache_bytes: as allocated; cache_bound_bytes: what the definition must hold."""

OF_CACHE = ("flops.step.", "bytes.step.", "cache_", "peak_bytes.decode")
"""Keys whose expressions are in L, the length in the cache, rather than T."""


def length_of(key: str) -> str:
    """The symbol of the length that a metric depends on."""
    return "L" if key.startswith(OF_CACHE) else "T"


@dataclass(frozen=True)
class Cost:
    """Metrics by key; those left out are 0."""

    values: Mapping[str, Count]

    def __getitem__(self, key: str) -> Count:
        assert key in METRICS, key
        return self.values.get(key, 0)

    def __add__(self, other: Cost) -> Cost:
        total = dict(self.values)
        for key, value in other.values.items():
            total[key] = total.get(key, 0) + value
        return Cost(total)

    def __mul__(self, times: int) -> Cost:
        return Cost({key: value * times for key, value in self.values.items()})

    @classmethod
    def sum(cls, costs: Iterable[Cost]) -> Cost:
        """Of many, most of them the same object."""
        found = list(costs)
        counts = Counter(map(id, found))
        alone = {id(cost): cost for cost in found}
        return sum((cost * counts[key] for key, cost in alone.items()), cls({}))

    def replaced(self, key: str, value: Count) -> Cost:
        return Cost({**self.values, key: value})

    def __iter__(self) -> Iterator[str]:
        return iter(METRICS)

    @property
    def parameters(self) -> int:
        return self.number("parameters")

    def number(self, key: str) -> int:
        """Of a cost in numbers."""
        value = self[key]
        assert isinstance(value, int), f"{key} is {value}"
        return value

    def as_json(self) -> dict[str, Any]:
        return nested({key: self.number(key) for key in METRICS})


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"flops.forward.dense": 1} as {"flops": {"forward": {"dense": 1}}}."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        place = tree
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return tree
