"""Devices and their sources, times on them, and the longest context that fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from counting import graph_of, graph_of_mixer
from typer.testing import CliRunner

from mixerlang.analysis import (
    Plan,
    analyze,
    fitting,
    latency_on,
    sharding_lines,
    size_of,
    time_lines,
)
from mixerlang.analysis.device import device, names
from mixerlang.analysis.sharding import parts
from mixerlang.cli.app import app

PAPER = Path(__file__).resolve().parents[2] / "specs/paper"
DEVICES = Path(__file__).resolve().parents[2] / "mixerlang/analysis/devices"


def test_the_devices() -> None:
    assert names() == ("a100", "b200", "h100", "h200", "l40s", "mi300x", "rtx4090")
    assert device("H100-SXM") == device("h100") and device("RTX 4090").key == "rtx4090"
    with pytest.raises(ValueError, match="did you mean `h200`"):
        device("h20")
    with pytest.raises(ValueError, match="there are a100"):
        device("abacus")


def numbers(data: Any) -> list[dict[str, Any]]:
    if isinstance(data, dict) and "value" in data:
        return [data]
    values = data.values() if isinstance(data, dict) else ()
    return [found for value in values for found in numbers(value)]


@pytest.mark.parametrize("path", sorted(DEVICES.glob("*.json")), ids=lambda path: path.stem)
def test_every_number_has_its_source(path: Path) -> None:
    data = json.loads(path.read_text())
    found = numbers(data)
    assert len(found) == 10
    assert all(each["value"] > 0 and len(each["source"]) > 10 for each in found)
    flops = {name: each["value"] for name, each in data["flops"].items()}
    assert flops["bfloat16"] == flops["float16"] > flops["float32"]
    assert all(0 < each["value"] <= 1 for each in data["attained"].values())


def test_time_of_a_layer_by_hand(tmp_path: Path) -> None:
    """A step of one ffn: its weights are read once, and each of its kernels has a gap."""
    graph = graph_of_mixer(tmp_path, "layer(none, ffn=mlp(relu, hidden=50_000), norm=none)")
    found = latency_on(analyze(graph, 1, 1, "bfloat16"), "h100")
    h100 = device("h100")
    weights = 2 * 2 * 12 * 50_000
    step = next(iter(found.times["step"].values()))
    bytes_per_second = h100.bandwidth * h100.attained_bandwidth
    moved = weights + 2 * (12 + 50_000) * 2 + 2 * 2 * 50_000 + 2 * 3 * 12  # and the residual
    assert step.bytes == pytest.approx(moved / bytes_per_second, rel=1e-6)
    assert step.products == 0 and step.bound == "launches" and step.launches == 4
    assert step.gaps == pytest.approx(4 * h100.gap)


@pytest.mark.parametrize("name", ["transformer_400m", "lalte_400m", "gdn_1400m"])
def test_no_time_beats_the_machine(name: str) -> None:
    graph = graph_of(PAPER / f"{name}.mix")
    for gpu in names():
        analysis = analyze(graph, 4, 4096, "bfloat16")
        found = latency_on(analysis, gpu)
        peak = device(gpu).flops["bfloat16"]
        for key, seconds in (("forward", found.prefill), ("step", found.step)):
            useful = analysis.total.number(f"flops.{key}.useful")
            assert useful / seconds < peak, (gpu, key)
        assert 0 < found.mfu < 1
        assert analysis.weight_bytes / found.step < device(gpu).bandwidth


def test_more_work_takes_longer() -> None:
    graph = graph_of(PAPER / "lalte_400m.mix")
    few, many = (latency_on(analyze(graph, batch, 4096, "bfloat16"), "h100") for batch in (1, 16))
    assert many.training > few.training and many.prefill > few.prefill and many.step > few.step
    exact = latency_on(analyze(graph, 1, 4096, "float32"), "h100")
    assert exact.training > 4 * few.training


def test_times_as_json_and_table() -> None:
    spec = str(PAPER / "lalte_400m.mix")
    answer = CliRunner().invoke(app, ["analyze", spec, "--gpu", "h200", "--json"])
    data = json.loads(answer.output)["latency"]
    found = latency_on(analyze(graph_of(PAPER / "lalte_400m.mix")), "h200")
    assert data["device"] == "NVIDIA H200 SXM 141GB"
    assert data["seconds"] == {
        "prefill": found.prefill, "step": found.step, "training": found.training,
    }  # fmt: skip
    parts = [kind["seconds"] for kind in data["kinds"]["step"].values()]
    assert sum(parts) == pytest.approx(found.step)
    text = time_lines(found)
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[2].split() == ["prefill", "forward", "backward", "step"]


def test_the_longest_context_that_fits() -> None:
    full = analyze(graph_of(PAPER / "full_400m.mix"), 4, dtype="bfloat16", backend="kernels")
    for most in (size_of("2GiB"), size_of("80GiB")):
        longest = fitting(full, most)
        assert longest is not None
        peaks = [
            analyze(full.graph, 4, length, "bfloat16", "kernels").memory["peak_bytes.decode"]
            for length in (longest, longest + 1)
        ]
        assert peaks[0] <= most < peaks[1]
    assert fitting(full, full.weight_bytes) == 0
    bounded = analyze(graph_of(PAPER / "lalte_400m.mix"), dtype="bfloat16", backend="kernels")
    assert fitting(bounded, size_of("2GiB")) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--gpu", "h101"], "did you mean `h100`"), (["--fits", "-1"], "is no number of bytes"),
     (["--fits", "many"], "is no number of bytes"),
     (["--length", "0"], "greater than or equal to 1"), (["--batch", "-3"], "greater than or")],
)  # fmt: skip
def test_what_means_nothing_is_refused(arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(app, ["analyze", str(PAPER / "lalte_400m.mix"), *arguments])
    assert answer.exit_code == 2
    assert words in " ".join(answer.output.replace("│", " ").split())


def test_memory_of_training_on_several_gpus() -> None:
    analysis = analyze(graph_of(PAPER / "lalte_400m.mix"), 2, 4096, "bfloat16", "kernels")
    alone = parts(analysis, Plan())
    assert sum(alone.values()) == analysis.memory["peak_bytes.training"]
    checkpointed = parts(analysis, Plan(checkpointed=True))
    assert sum(checkpointed.values()) == analysis.memory["peak_bytes.training_checkpointed"]
    total = analysis.total.parameters
    shared = parts(analysis, Plan(8, "lion", mixed=True))
    assert shared["weights"] == shared["moments"] == 4 * -(-total // 8)
    largest = max(layer.cost.parameters for layer in analysis.layers)
    assert shared["whole layers"] == largest * (2 * 2 + 4)
    assert shared["activations"] == alone["activations"]
    assert parts(analysis, Plan(1, "sgd"))["moments"] == 0
    text = sharding_lines(analysis, Plan(8))
    assert "each of 8 GPUs under FSDP2" in text and text.splitlines()[-1].startswith("peak")
    with pytest.raises(ValueError, match="optimizer is one of adamw"):
        Plan(1, "adam")
    spec = str(PAPER / "lalte_400m.mix")
    answer = CliRunner().invoke(app, ["analyze", spec, "--gpus", "4", "--mixed", "--json"])
    assert json.loads(answer.output)["sharded"]["gpus"] == 4
