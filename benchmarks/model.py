"""Whole models of 0.4B in bfloat16: training steps, prefill and greedy decoding, beside Llama.

Ours is the paper's Transformer and the same with a window of 512 in every layer; the peer is
transformers' Llama of the same shape, in the same process, with the Transformer's own weights:
logits must agree. A training step is forward, backward and fused AdamW, B 8 x T 4096, each model
as it is and (--compiled, a process for each) through torch.compile; decoding is what `generate`
does on ours, and a loop over the peer's forward, which waits for its launches most of the time
where the host is slow.

    python benchmarks/model.py --output benchmarks/results [--compiled]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import harness
import tables
import torch
from torch import Tensor, nn

import mixerlang
from mixerlang.nn.loss import cross_entropy

SPECS = {
    "transformer": harness.ROOT / "specs/paper/transformer_400m.mix",
    "window": harness.ROOT / "benchmarks/specs/window_400m.mix",
    "lte": harness.ROOT / "benchmarks/specs/lte_400m.mix",
}
MEASURED = ("transformer", "window")
Loss = Callable[[Tensor], Tensor]


class Sizes(NamedTuple):
    """Of a training step, and of decoding: prompt tokens, steps that are timed, batches."""

    batch: int
    tokens: int
    steps: int
    prompt: int
    decoded: int
    batches: tuple[int, ...]
    layers: int


FULL = Sizes(8, 4096, 6, 4096, 48, (1, 32), 24)
REHEARSAL = Sizes(2, 64, 2, 32, 4, (1, 2), 2)


# ----------------------------------------------------------------------------------------- models


def ours(name: str, layers: int) -> nn.Module:
    """The spec's model; a rehearsal has fewer layers."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder, f"{name}.mix")
        spec.write_text(SPECS[name].read_text().replace("* 24", f"* {layers}"))
        model: nn.Module = mixerlang.load(spec, device=harness.device(), dtype="bfloat16", seed=0)
    return model


def llama(source: nn.Module) -> nn.Module:
    """transformers' Llama with the weights of our Transformer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    first, width = source.layers[0], source.embedding.weight.shape[1]
    config = LlamaConfig(
        vocab_size=source.embedding.weight.shape[0],
        hidden_size=width,
        intermediate_size=first.ffn.gate_proj.weight.shape[0],
        num_hidden_layers=len(source.layers),
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        dtype=torch.bfloat16,
    )
    with torch.device(harness.device()):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict({_their_name(k): v for k, v in source.state_dict().items()}, strict=False)
    return model


def _their_name(name: str) -> str:
    for mine, theirs in (
        ("embedding.", "model.embed_tokens."),
        ("layers.", "model.layers."),
        (".mixer.", ".self_attn."),
        (".ffn.", ".mlp."),
        (".norm1.", ".input_layernorm."),
        (".norm2.", ".post_attention_layernorm."),
        ("final_norm.", "model.norm."),
    ):
        name = name.replace(mine, theirs)
    return name


def our_loss(model: nn.Module) -> Loss:
    def loss(blocks: Tensor) -> Tensor:
        return cross_entropy(model(blocks[:, :-1]), blocks[:, 1:])

    return loss


def their_loss(model: nn.Module) -> Loss:
    def loss(blocks: Tensor) -> Tensor:
        tokens = blocks[:, :-1]
        found: Tensor = model(tokens, labels=tokens, use_cache=False).loss
        return found

    return loss


# --------------------------------------------------------------------------------------- training


class Training(NamedTuple):
    """Of a step: ms, peak memory in GiB; and seconds that the first one took."""

    ms: float
    gib: float
    first_s: float


def train(step: Callable[[], float], sizes: Sizes, first_ms: float | None = None) -> Training:
    """Median time of a step; the first one's is known where it was done before."""
    first = step() if first_ms is None else first_ms
    step()
    harness.reset_peak()
    times = sorted(step() for _ in range(sizes.steps))
    return Training(times[len(times) // 2], harness.peak_gib(), first / 1e3)


def stepping(model: nn.Module, loss: Loss, sizes: Sizes) -> Callable[[], float]:
    """A training step on random tokens, which gives its ms."""
    model.train()
    blocks = random_tokens(sizes.batch, sizes.tokens + 1)
    fused = harness.device() == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused)

    def step() -> float:
        harness.synchronize()
        began = time.perf_counter()
        loss(blocks).backward()
        optimizer.step()
        optimizer.zero_grad()
        harness.synchronize()
        return 1e3 * (time.perf_counter() - began)

    return step


def random_tokens(batch: int, tokens: int) -> Tensor:
    torch.manual_seed(batch)
    return torch.randint(32_000, (batch, tokens), device=harness.device())


@torch.no_grad()
def apart(mine: nn.Module, theirs: nn.Module) -> float:
    """Relative difference of logits: of the same weights, only rounding."""
    tokens = random_tokens(1, 300)
    a, b = mine(tokens).float(), theirs(tokens).logits.float()
    return ((a - b).norm() / b.norm()).item()


# --------------------------------------------------------------------------------------- decoding


class Decoding(NamedTuple):
    """ms: of a token after the first few; until the first token of a call, which for ours is not
    the one that captures a step as a graph; and of the forward over the prompt into a new cache."""

    decode: float
    first_token: float
    prefill: float


def our_decoding(model: nn.Module, batch: int, sizes: Sizes) -> Decoding:
    tokens = random_tokens(batch, sizes.prompt)
    for _ in range(2):
        harness.synchronize()
        times = [time.perf_counter()]
        for _ in model.stream(tokens, sizes.decoded + 8):
            times.append(time.perf_counter())
    model.eval()

    def prefill() -> None:
        cache = model.new_cache(batch, max_length=sizes.prompt + sizes.decoded + 8)
        model(tokens, cache=cache, last_only=True)

    return decoding(times, sizes.decoded, prefill)


@torch.no_grad()
def their_decoding(model: nn.Module, batch: int, sizes: Sizes) -> Decoding:
    model.eval()
    tokens = random_tokens(batch, sizes.prompt)
    for _ in range(2):
        harness.synchronize()
        times = [time.perf_counter()]
        out = model(tokens, use_cache=True, logits_to_keep=1)
        for _ in range(min(sizes.decoded, 24) + 8):
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            token.tolist()
            times.append(time.perf_counter())
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
    del out
    return decoding(times, len(times) - 9, lambda: model(tokens, use_cache=True, logits_to_keep=1))


@torch.no_grad()
def decoding(times: list[float], last: int, prefill: Callable[[], object]) -> Decoding:
    """From when a call began and gave each token; of it the `last` tokens are timed."""
    token = (times[-1] - times[-1 - last]) / last
    spans = []
    for _ in range(3):
        harness.synchronize()
        began = time.perf_counter()
        prefill()
        harness.synchronize()
        spans.append(time.perf_counter() - began)
    return Decoding(*(1e3 * each for each in (token, times[1] - times[0], sorted(spans)[1])))


# ------------------------------------------------------------------------------------------- rows


def as_they_are(sizes: Sizes) -> Iterator[harness.Row]:
    """Training and decoding of each model, in this process."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("llama", *MEASURED):
        found[name] = harness.attempt(name, partial(one_model, name, sizes)) or {}
        harness.say(f"{name}: {found[name]}")
        harness.free()
    for name in MEASURED:
        yield from training_row(name, found[name], found["llama"], sizes, "eager")
        for batch in sizes.batches:
            mine, theirs = (found[key].get(f"decode {batch}") for key in (name, "llama"))
            yield from decoding_rows(name, batch, mine, theirs, sizes)


def make(name: str, sizes: Sizes) -> tuple[nn.Module, Loss]:
    if name != "llama":
        model = ours(name, sizes.layers)
        return model, our_loss(model)
    source = ours("transformer", sizes.layers)
    model = llama(source)
    difference = apart(source, model)
    assert difference < 5e-2, f"logits {difference:.1e} apart: not the same model"
    return model, their_loss(model)


def one_model(name: str, sizes: Sizes) -> dict[str, Any]:
    """What is measured of one model, by name; what fails is left out."""
    model, loss = make(name, sizes)
    run_decoding = their_decoding if name == "llama" else our_decoding
    found = {}
    for batch in sizes.batches:
        run = partial(run_decoding, model, batch, sizes)
        found[f"decode {batch}"] = harness.attempt(f"{name} decoding {batch}", run)
    step = stepping(model, loss, sizes)
    found["train"] = harness.attempt(f"{name} training", partial(train, step, sizes))
    return found


class Compiled(NamedTuple):
    """A model under torch.compile, in a process of its own: compiling takes a core a minute."""

    name: str
    sizes: Sizes

    def __str__(self) -> str:
        return f"{self.name} compiled"


_held: dict[str, tuple[Callable[[], float], float]] = {}
"""A compiled step by model, and the ms that the first one took."""


def compile_step(cell: Compiled) -> None:
    model, loss = make(cell.name, cell.sizes)
    step = stepping(model, torch.compile(loss, dynamic=False), cell.sizes)
    _held[cell.name] = step, step()


def measure_compiled(cell: Compiled) -> Iterator[harness.Row]:
    if cell.name not in _held:
        compile_step(cell)
    step, first = _held[cell.name]
    yield {"name": cell.name, "train": train(step, cell.sizes, first)}


def fills_half_the_memory(cell: Compiled) -> bool:
    return cell.sizes is not REHEARSAL


def compiled(sizes: Sizes) -> Iterator[harness.Row]:
    """Training, each model compiled beside the others and measured alone."""
    cells = [Compiled(name, sizes) for name in ("llama", *MEASURED)]
    suite = harness.Suite(cells, measure_compiled, compile_step, large=fills_half_the_memory)
    found = {item["name"]: item for item in harness.run(suite, workers=len(cells))}
    for name in MEASURED:
        mine, theirs = found.get(name, {}), found.get("llama", {})
        yield from training_row(name, mine, theirs, sizes, "compiled")


def training_row(
    name: str, mine: dict[str, Any], theirs: dict[str, Any], sizes: Sizes, how: str
) -> Iterator[harness.Row]:
    a: Training | None = mine.get("train")
    b: Training | None = theirs.get("train")
    if a is None:
        return
    more = {"ours_gib": round(a.gib, 2), "ours_first_s": round(a.first_s, 1)}
    if b is not None:
        more |= {"peer_gib": round(b.gib, 2), "peer_first_s": round(b.first_s, 1)}
    shape = f"{name} 0.4B train B{sizes.batch} T{sizes.tokens} {how}"
    more |= {"tokens": sizes.batch * sizes.tokens}
    theirs_ms = None if b is None else b.ms
    yield harness.row("model", shape, "fwd+bwd", "eager", a.ms, "llama", theirs_ms, **more)


def decoding_rows(
    name: str, batch: int, mine: Decoding | None, theirs: Decoding | None, sizes: Sizes
) -> Iterator[harness.Row]:
    """Per token, and of the prompt."""
    if mine is None:
        return
    for field in Decoding._fields:
        shape = f"{name} 0.4B {field.replace('_', ' ')} B{batch} T{sizes.prompt}"
        tokens = batch * (1 if field == "decode" else sizes.prompt)
        peer = None if theirs is None else getattr(theirs, field)
        ours = getattr(mine, field)
        yield harness.row("model", shape, "fwd", "eager", ours, "llama", peer, tokens=tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=harness.RESULTS)
    parser.add_argument("--compiled", action="store_true", help="training under torch.compile")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on any machine")
    options = parser.parse_args()
    sizes = REHEARSAL if options.dry else FULL
    rows = list(compiled(sizes) if options.compiled else as_they_are(sizes))
    measured = {row["shape"] for row in rows}
    harness.save(rows, options.output, keep=lambda row: row["shape"] not in measured)
    print("\n".join(tables.model(rows)))


if __name__ == "__main__":
    main()
