"""GPUs by name: what they can do at most, and what programs attain of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..diagnostics.suggest import did_you_mean


@dataclass(frozen=True)
class Device:
    """flops: multiply-adds as two, per second, by dtype, without sparsity; float32 without TF32.
    bandwidth: bytes per second. matrix, attention, attained_bandwidth: shares of these that matrix
    products, attention kernels and copies attain. gap: seconds between kernels of a replayed CUDA
    graph; host: seconds that the host takes to start one. sources: of each number, by its name."""

    key: str
    name: str
    memory_bytes: int
    bandwidth: float
    flops: dict[str, float]
    matrix: float
    attention: float
    attained_bandwidth: float
    gap: float
    host: float
    sources: dict[str, str]


@cache
def names() -> tuple[str, ...]:
    """Keys of the devices there are."""
    folder = files(__package__).joinpath("devices")
    return tuple(
        sorted(
            entry.name.removesuffix(".json")
            for entry in folder.iterdir()
            if entry.name.endswith(".json")
        )
    )


@cache
def device(name: str) -> Device:
    """By its key or another name: `h100`, `H100-SXM`, `rtx 4090`."""
    wanted = "-".join(name.lower().split())
    for key in names():
        data = _read(key)
        if wanted in (key, *data["aliases"]):
            return _device(key, data)
    help = did_you_mean(wanted, names()) or f"there are {', '.join(names())}"
    raise ValueError(f"no device is called {name!r}; {help}")


def _read(key: str) -> dict[str, Any]:
    text = files(__package__).joinpath("devices", f"{key}.json").read_text("utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def _device(key: str, data: dict[str, Any]) -> Device:
    attained, launch = data["attained"], data["launch_seconds"]
    numbers = {
        "memory_bytes": data["memory_bytes"], "bandwidth": data["bandwidth"],
        "matrix": attained["matrix"], "attention": attained["attention"],
        "attained_bandwidth": attained["bandwidth"], "gap": launch["gap"], "host": launch["host"],
    }  # fmt: skip
    return Device(
        key, data["name"], flops={name: each["value"] for name, each in data["flops"].items()},
        sources={
            **{name: each["source"] for name, each in numbers.items()},
            **{f"flops.{name}": each["source"] for name, each in data["flops"].items()},
        },
        **{name: each["value"] for name, each in numbers.items()},
    )  # fmt: skip
