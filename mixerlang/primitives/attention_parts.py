"""What attention costs: its products, the scorers and summaries of its keep, and its traffic.

Shapes: H query heads and G KV heads of a branch's group, D channels of q and k, E of v.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

from ..algebra import Count, ceil_div, least, reached
from . import keep as k
from .attention import Attention, branches, keys_of, leaves, scorer_shapes, summaries
from .keep_cost import branch_extent
from .keep_pairs import visible_pairs
from .norm import Rope
from .part import Flops, Part, Workload, elementwise, linear

SEGMENT = 128
"""Tokens between counts of kept keys (kernels/attention/intervals.py)."""
SEED = 8
"""Bytes, of the scorer's dropout."""


@dataclass(frozen=True)
class Group:
    """KV heads with equal keeps, and their query heads."""

    attention: Attention
    keep: k.Keep
    heads: int
    kv_heads: int

    @property
    def dims(self) -> tuple[int, int]:
        """D and E."""
        _, _, head_dim, value_dim = self.attention.shape()
        return head_dim, value_dim


def groups(attention: Attention) -> Iterator[Group]:
    heads, kv_heads, _, _ = attention.shape()
    keep = attention.keep
    keeps = keep.keeps if isinstance(keep, k.ByHead) else (keep,) * kv_heads
    for own in dict.fromkeys(keeps):
        count = keeps.count(own)
        yield Group(attention, own, heads // kv_heads * count, count)


def parts(attention: Attention, width: int, work: Workload) -> Iterator[Part]:
    """Of `length` new tokens, without a cache."""
    yield from _before(attention, width, work)
    for group in groups(attention):
        for branch in branches(group.keep):
            yield from _beside(group, branch, work)
            keys = keys_of(branch, work.length)
            seen = visible_pairs(branch, work.length, work.training)
            yield _softmax(group, work, work.length * keys, seen.count, seen.bound)
    yield from _after(attention, width, work)


def step_parts(attention: Attention, width: int, work: Workload) -> Iterator[Part]:
    """Of one more token after `length` in a cache."""
    yield from _before(attention, width, work.one)
    for group in groups(attention):
        for branch in branches(group.keep):
            yield from _beside_step(group, branch, work)
            yield _step(group, branch, work)
    yield from _after(attention, width, work.one)


# ------------------------------------------------------------------------------------- projections


def _before(attention: Attention, width: int, work: Workload) -> Iterator[Part]:
    """q, k and v, and their positions."""
    heads, kv_heads, head_dim, value_dim = attention.shape()
    yield linear("q_proj", work, width, heads * head_dim, attention.bias)
    for name, dim in (("k_proj", head_dim), ("v_proj", value_dim)):
        part = linear(name, work, width, kv_heads * dim, attention.bias)
        if isinstance(attention.keep, k.Compressed):  # before the first summary nothing reads them
            part = replace(part, backward=part.backward * reached(work.length, attention.keep.size))
        yield part
    turned = (heads + kv_heads) * head_dim
    kept = work.bytes_per_element * work.tokens * turned
    if attention.qk_norm is not None:
        yield elementwise("qk_norm", work, turned, turned, 2 * head_dim, saved=kept)
    if isinstance(attention.position, Rope):
        yield elementwise("rope", work, turned, turned)


def _after(attention: Attention, width: int, work: Workload) -> Iterator[Part]:
    """Gates and the way out."""
    heads, _, _, value_dim = attention.shape()
    values, branch_count = heads * value_dim, _branch_count(attention)
    element = work.bytes_per_element
    if branch_count:
        gates = heads * branch_count
        kept = element * work.tokens * (gates + values)
        yield linear("branch_gate", work, width, gates, saved=kept)
        yield elementwise("sum of branches", work, branch_count * values + gates, values)
    if attention.gate:
        yield linear("g_proj", work, width, values, saved=2 * element * work.tokens * values)
        yield elementwise("x * sigmoid", work, 2 * values, values)
    yield linear("o_proj", work, values, width)


def _branch_count(attention: Attention) -> int:
    return sum(len(leaf.parts) for leaf in leaves(attention.keep) if isinstance(leaf, k.GatedKeep))


# ----------------------------------------------------------------------------------------- softmax


def _softmax(group: Group, work: Workload, dense: Count, useful: Count, bound: bool) -> Part:
    """Scores and weighted values of `dense` and `useful` pairs per sequence and query head; kept
    for backward: q, k, v, the output and the log-sum-exp."""
    head_dim, value_dim = group.dims
    per_pair = 2 * group.heads * (head_dim + value_dim) * work.batch
    forward = Flops(per_pair * useful, per_pair * dense)
    keys = group.kv_heads * (head_dim + value_dim)
    element, outputs, sums = work.bytes_per_element, group.heads * value_dim, 4 * group.heads
    read = element * work.tokens * (group.heads * head_dim + keys)
    written = work.tokens * (element * outputs + sums)
    return Part("attention", forward, forward * 2, read, written, saved=read + written, bound=bound)


def _step(group: Group, branch: k.Keep, work: Workload) -> Part:
    """One query over what is held and itself."""
    head_dim, value_dim = group.dims
    dense, useful = step_keys(group.keep, branch, work.length)
    per_key = 2 * work.batch * group.heads * (head_dim + value_dim)
    element, keys = work.bytes_per_element, group.kv_heads * (head_dim + value_dim)
    return Part(
        "attention",
        Flops(per_key * useful, per_key * dense),
        read=element * work.batch * (group.heads * head_dim + keys * useful),
        written=element * work.batch * (group.heads * value_dim + keys),
        bound=_depends_on_data(branch),
    )


def step_keys(keep: k.Keep, branch: k.Keep, length: Count) -> tuple[Count, Count]:
    """Keys of a step of a branch after `length` tokens: those that plain PyTorch scores, which all
    branches of a keep hold together, and those seen."""
    if isinstance(branch, k.Compressed):
        held = summaries(branch, length) + _completed(branch, length)
        return held, summaries(branch, length + 1)
    tokens = reduce(or_, map(branch_extent, branches(keep))).slots(length)
    after, before = visible_pairs(branch, length + 1), visible_pairs(branch, length)
    return tokens + 1, after.count - before.count


def _completed(keep: k.Compressed, length: Count) -> Count:
    """Summaries that plain PyTorch makes for a token after `length`, wanted or not."""
    return least(1 // (keep.stride or keep.size) + 1, summaries(keep, length + 1))


def _depends_on_data(branch: k.Keep) -> bool:
    return visible_pairs(branch, 1).bound


# ----------------------------------------------------------------------- scorers, summaries, choice


def _beside(group: Group, branch: k.Keep, work: Workload) -> Iterator[Part]:
    """What a branch computes to know its keys."""
    for leaf in leaves(branch):
        if isinstance(leaf, k.Learned) and isinstance(leaf.scorer, k.Cnn):
            yield _scorer(group, leaf.scorer, work)
        elif isinstance(leaf, k.Compressed):
            count = summaries(leaf, work.length)
            yield from _summaries(group, leaf.map, leaf.size, count, group.dims, work)
        elif isinstance(leaf, k.Blocks):
            yield from _chosen(group, leaf, work)


def _beside_step(group: Group, branch: k.Keep, work: Workload) -> Iterator[Part]:
    for leaf in leaves(branch):
        if isinstance(leaf, k.Learned) and isinstance(leaf.scorer, k.Cnn):
            yield _scorer(group, leaf.scorer, work.one)
        elif isinstance(leaf, k.Compressed):
            new = _completed(leaf, work.length)
            yield from _summaries(group, leaf.map, leaf.size, new, group.dims, work)
        elif isinstance(leaf, k.Blocks):
            yield from _chosen_step(group, leaf, work)


def _scorer(group: Group, cnn: k.Cnn, work: Workload) -> Part:
    """A network per KV head over [k; v]; kept for backward: keys before positions, what each layer
    gives, packed weights, logits and the scores that they are, intervals of kept tokens."""
    shapes = scorer_shapes(cnn, *group.dims)
    weights = group.kv_heads * sum(cin * cout * taps for cin, cout, taps in shapes)
    forward = Flops(2 * work.tokens * weights, 2 * work.tokens * weights)
    element, inputs = work.bytes_per_element, group.kv_heads * sum(group.dims)
    layers = group.kv_heads * sum(cout for _, cout, _ in shapes[:-1])
    raw, heads = group.kv_heads * group.dims[0], group.kv_heads
    packed = heads * sum(cin * cout * taps + cout for cin, cout, taps in shapes)
    counts = work.batch * heads * (ceil_div(work.length, SEGMENT) + 1)
    return Part(
        "scorer",
        forward,
        forward * 2,
        read=element * (work.tokens * inputs + weights),
        written=4 * work.tokens * group.kv_heads,
        saved=work.tokens * (element * (layers + raw) + 16 * heads)
        + 4 * counts + element * packed + SEED,
    )


def _summaries(
    group: Group,
    rule: k.SummaryMap,
    size: int,
    count: Count,
    dims: tuple[int, ...],
    work: Workload,
    learned: bool = True,
) -> Iterator[Part]:
    """`count` summaries per sequence and KV head of blocks of `size` vectors, of each of `dims`."""
    blocks = work.batch * group.kv_heads * count
    expand = rule.expand if isinstance(rule, k.MlpMap) else 0
    macs = sum(map_macs(size, expand, dim) for dim in dims)
    forward = Flops(2 * blocks * macs, 2 * blocks * macs)
    element = work.bytes_per_element
    read, written = element * blocks * size * sum(dims), element * blocks * sum(dims)
    yield Part("summaries", forward, forward * (2 if learned else 0), read, written, saved=written)


def map_macs(size: int, expand: int, dim: int) -> int:
    """Of the summary of one block by an mlp: size * dim -> expand * dim -> dim."""
    return (size * dim + dim) * expand * dim


def _chosen(group: Group, blocks: k.Blocks, work: Workload) -> Iterator[Part]:
    """Scores of every query on summaries, and their sums per block and KV head."""
    length, count = work.length, work.length // blocks.size
    head_dim, learns = group.dims[0], blocks.score == "mlp"
    seen = visible_pairs(k.Compressed(size=blocks.size), length).count
    if blocks.score == "compressed":
        beside = next(part for part in branches(group.keep) if isinstance(part, k.Compressed))
        count, seen = summaries(beside, length), visible_pairs(beside, length).count
    else:
        rule = k.MlpMap() if learns else k.MeanMap()
        yield from _summaries(group, rule, blocks.size, count, (head_dim,), work, learns)
        per_pair = 2 * work.batch * group.heads * head_dim
        scores = Flops(per_pair * seen, per_pair * length * count)
        yield Part("block scores", scores, scores * (2 if learns else 0))
    per_pair = 2 * work.batch * group.kv_heads
    sums = Flops(per_pair * seen, per_pair * length * count * ceil_div(length, blocks.size))
    yield Part("block sums", sums, sums * (1 if learns else 0))


def _chosen_step(group: Group, blocks: k.Blocks, work: Workload) -> Iterator[Part]:
    """The same for one query, on the summaries so far and those that plain PyTorch makes."""
    length = work.length
    source = k.Compressed(size=blocks.size)
    if blocks.score == "compressed":
        source = next(part for part in branches(group.keep) if isinstance(part, k.Compressed))
    held, seen = step_keys(source, source, length)
    if blocks.score != "compressed":
        rule = k.MlpMap() if blocks.score == "mlp" else k.MeanMap()
        dim, new = group.dims[0], _completed(source, length)
        yield from _summaries(group, rule, blocks.size, new, (dim,), work)
        per_pair = 2 * work.batch * group.heads * dim
        read = work.bytes_per_element * work.batch * group.kv_heads * dim * seen
        yield Part("block scores", Flops(per_pair * seen, per_pair * held), read=read)
    per_pair = 2 * work.batch * group.kv_heads
    yield Part("block sums", Flops(per_pair * seen, per_pair * held * (length // blocks.size + 1)))
