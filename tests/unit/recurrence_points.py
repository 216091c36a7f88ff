"""Named recurrences, and points beside them, as terms of the language."""

from __future__ import annotations

from typing import Any

from mixerlang.primitives import recurrence as r
from mixerlang.primitives.norm import Rope

UNIT = r.Compose(parts=(r.Silu(), r.L2Norm()))
GATED = r.GatedRMSNorm()
DELTA: dict[str, Any] = {"features": UNIT, "values": r.Silu(), "update": r.Delta(), "conv": 4}

POINTS: dict[str, dict[str, Any]] = {
    "linear": {"heads": 3, "features": r.Elu1(), "normalizer": "sum", "output": r.PlainOutput()},
    "retnet": {"heads": 2, "value_dim": 7, "decay": r.Fixed(), "position": Rope(),
               "output": r.GatedRMSNorm()},
    "lightning": {"heads": 3, "features": r.Silu(), "values": r.Silu(),
                  "decay": r.Fixed(schedule="lightning"),
                  "output": r.GatedRMSNorm(activation="sigmoid")},
    "gla": {"heads": 2, "key_dim": 5, "value_dim": 9, "output": GATED,
            "decay": r.Vector(rank=4, temperature=16.0)},
    "hgrn2": {"heads": 3, "features": r.Silu(), "decay": r.Vector(), "keys": "complement"},
    "mamba2": {"heads": 1, "value_heads": 6, "key_dim": 9, "value_dim": 5, "features": r.Silu(),
               "values": r.Silu(), "decay": r.Scalar(), "update": r.Additive(step=True),
               "conv": 4, "skip": True, "scale": 1.0, "output": GATED},
    "deltanet": {"heads": 3, **DELTA},
    "deltanet, negative eigenvalues": {"heads": 3, **DELTA, "update": r.Delta(scale=2.0)},
    "gated deltanet": {"heads": 2, "value_heads": 4, "key_dim": 6, "value_dim": 10,
                       **DELTA, "decay": r.Scalar(), "output": GATED},
    "kda": {"heads": 3, "key_dim": 8, **DELTA, "decay": r.Vector(form="softplus", rank=8),
            "output": r.GatedRMSNorm(activation="sigmoid", rank=8)},
    "based": {"heads": 2, "key_dim": 4, "value_dim": 12, "features": r.Taylor(),
              "normalizer": "sum", "output": r.PlainOutput()},
    "hedgehog": {"heads": 3, "features": r.Hedgehog(), "normalizer": "sum",
                 "output": r.PlainOutput()},
    "grouped kda": {"heads": 2, "value_heads": 6, "key_dim": 5, **DELTA,
                    "decay": r.Vector(form="softplus")},
    "taylor of hedgehog": {"heads": 2, "key_dim": 3, "decay": r.Scalar(), "conv": 1,
                           "features": r.Compose(parts=(r.Hedgehog(), r.Taylor(degree=1)))},
}  # fmt: skip
