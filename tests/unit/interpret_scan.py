"""The scan's kernels in Triton's interpreter: errors by case, as JSON."""

from __future__ import annotations

import json

from interpreting import accept_new_numpy
from scan_cases import RULES, errors

from mixerlang.kernels.scan import source

SIZES = {"whole": (8, 16, [3, 3]), "padded": (5, 19, [4, 2])}


def main() -> None:
    accept_new_numpy()
    source.TILE = 16 * 8  # so that small values are cut into blocks
    found = {}
    for name in RULES:
        for size, (key, value, counts) in SIZES.items():
            found[f"{name}, {size}"] = errors(name, key, value, counts)
    found["segments"] = errors("gated delta", 2, 8, [66], heads=1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
