"""How long a fresh process takes to its first finished training step, torch's import included.

Each model runs twice: with empty kernel caches (our rendered files, Triton's and Inductor's), then
with what the first run left in them. The step is that of model.py, 0.4B, B 8 x T 4096, bfloat16,
with the trainer's AdamW: torch's own, less the import of torch.compile.

    python benchmarks/first_step.py --output benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CACHES = ("MIXERLANG_CACHE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
LIMIT = 120
"""Seconds that a run may take."""


def step(name: str, dry: bool) -> None:
    """In the process that is timed."""
    began = time.perf_counter()
    import harness
    import model

    from mixerlang.training import AdamW

    sizes = model.REHEARSAL if dry else model.FULL
    imported = time.perf_counter()
    built = model.ours(name, sizes.layers)
    tokens = model.random_tokens(sizes.batch, sizes.tokens + 1)
    optimizer = AdamW(built.parameters(), fused=harness.device() == "cuda")
    harness.synchronize()
    loaded = time.perf_counter()
    model.our_loss(built)(tokens).backward()
    optimizer.step()
    harness.synchronize()
    spans = {"import": imported - began, "model": loaded - imported}
    spans |= {"step": time.perf_counter() - loaded, "done": time.time()}
    print(json.dumps(spans))


def timed(name: str, caches: Path, dry: bool) -> tuple[float, dict[str, float]]:
    """Seconds from the start of a process until its step is done, and where they went."""
    environment = os.environ | {cache: str(caches / cache.lower()) for cache in CACHES}
    command = [sys.executable, __file__, "--step", name, *(["--dry"] if dry else [])]
    began = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    spans: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return spans.pop("done") - began, spans


def measure(name: str, dry: bool) -> Iterator[dict[str, object]]:
    import harness

    with tempfile.TemporaryDirectory() as caches:
        for state in ("cold", "warm"):
            seconds, spans = timed(name, Path(caches), dry)
            harness.say(f"{name} {state}: {seconds:.1f} s, {spans}")
            shape = f"{name} 0.4B first step {state}"
            parts = {key: round(value, 2) for key, value in spans.items()}
            yield harness.row("model", shape, "fwd+bwd", "eager", 1e3 * seconds, seconds=parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--models", nargs="+", default=["window", "lte", "transformer"])
    parser.add_argument("--step", help="be the process that is timed")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on any machine")
    options = parser.parse_args()
    if options.step:
        step(options.step, options.dry)
        return
    import harness
    import tables

    rows = []
    for name in options.models:
        rows += harness.attempt(name, lambda name=name: list(measure(name, options.dry))) or []
    measured = {row["shape"] for row in rows}
    harness.save(
        rows, options.output or harness.RESULTS, keep=lambda row: row["shape"] not in measured
    )
    print("\n".join(tables.model(rows)))


if __name__ == "__main__":
    main()
