"""When each token leaves its slot, block by block.

The slots at the head of a block and the block's tokens are ranked together. A token leaves when as
many as there are slots rank above it; of those that do, the ones from before the block are there
from the start, so it is the k-th of the block's own that pushes it out. Which one that is, is read
off a set of bits, one for each token of the block that ranks above.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

from .keys import PINNED, VARYING, pinned_slots, place, position_of, program, total

BYTES = tl.constexpr(0x0101010101010101)
"""Times this, the bytes of a number become their running sums."""


@triton.jit(do_not_specialize=VARYING)
def find_deaths(
    table_ptr,
    count_ptr,
    over_ptr,
    ranked_ptr,
    within_ptr,
    before_ptr,
    death_ptr,
    kept_ptr,
    blocks,
    tokens,
    budget,
    length,
    window,
    BLOCK: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """death: of the tokens that leave a slot, or never get one, in this block. kept: how many of
    the block's own tokens get one."""
    row, block = program(blocks)
    start, _, _, first, _ = place(table_ptr, block, blocks, tokens, BLOCK)
    at = row * blocks + block
    kept = tl.load(count_ptr + at)
    over = tl.load(over_ptr + at) != 0
    if over:
        over = total(count_ptr + row * blocks, first, block + 1) > budget
    if over:
        before_at = before_ptr + (row * tl.cdiv(blocks, length) + block // length) * SLOTS
        goes_on = first < block // length * length
        lowest = lowest_slots(before_at, within_ptr + at * SLOTS, goes_on, budget, BLOCK, SLOTS)
        rank = tl.arange(0, BLOCK)
        arrived = tl.load(ranked_ptr + at * BLOCK + BLOCK - 1 - rank)
        upper = tl.maximum(lowest, arrived)
        lower = tl.bitonic_merge(tl.minimum(lowest, arrived), descending=True)
        j = position_of(lower)
        own = tl.where(lower > 0, j - start, -1)  # negative for what was there before
        pusher = push_out(own, tl.where(upper < PINNED, position_of(upper) - start, -1))
        refused = (lower > 0) & (own >= 0) & (pusher <= own)
        at_death = start + tl.maximum(own, pusher) + window
        tl.store(death_ptr + row * tokens + j, at_death, mask=lower > 0)
        kept -= tl.sum(refused.to(tl.int32))
    tl.store(kept_ptr + at, kept)


@triton.jit
def lowest_slots(
    before_ptr,
    within_ptr,
    goes_on,
    budget,
    BLOCK: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """The lowest BLOCK of the slots at the head of a block, descending.

    The best SLOTS of two lists are the larger of one and the other reversed, which rises and falls
    once; its lowest elements are then the least of those BLOCK apart, which rise and fall too.
    """
    lowest = tl.full([BLOCK], PINNED, tl.int64)
    for at in range(0, SLOTS, BLOCK):
        slot = at + tl.arange(0, BLOCK)
        held = tl.load(before_ptr + slot, mask=goes_on & (slot >= 0), other=0)
        held = tl.where(goes_on, held, pinned_slots(slot, budget, SLOTS))
        lowest = tl.minimum(lowest, tl.maximum(held, tl.load(within_ptr + SLOTS - 1 - slot)))
    return tl.bitonic_merge(lowest, descending=True)


@triton.jit
def push_out(own, upper):
    """Which of the block's tokens pushes each of the lower half out, as an index into the block.

    own and upper: the tokens of the lower half, in order, and of the upper, in any: their index in
    the block, negative for others. -1 where a token of the block finds no slot from the start.
    """
    words = above(count_bit(own), count_bit(upper))  # a byte for each 32 of the block's tokens
    number = (((words * BYTES) >> 48) & 255) + ((words >> 56) & 255)  # up to 256: not a byte
    nth = number.to(tl.int32) - tl.arange(0, own.shape[0])  # less this one's rank in the lower half
    word, rest = find_byte(words * BYTES, nth, 8)
    bits = own * 0
    for index in range(8):
        found = above(member_bit(own, index), member_bit(upper, index))
        bits = tl.where(word == index, found, bits)
    return tl.where(nth > 0, 32 * word + nth_bit(bits, rest), -1)


@triton.jit
def above(own, upper):
    """The sum of what ranks above each token of the lower half."""
    return tl.cumsum(own, 0) - own + tl.sum(upper)


@triton.jit
def count_bit(index):
    """1 in the byte of index's word of 32."""
    one = tl.full(index.shape, 1, tl.int64)
    return tl.where(index >= 0, one << (8 * (index >> 5)).to(tl.int64), one * 0)


@triton.jit
def member_bit(index, word):
    """Bit index % 32 if index lies in this word of 32."""
    return tl.where(index >> 5 == word, tl.full(index.shape, 1, tl.int32) << (index & 31), 0)


@triton.jit
def nth_bit(bits, n):
    """Where the n-th set bit (from 1) of 32 is."""
    pairs = bits - ((bits >> 1) & 0x55555555)
    nibbles = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    bytes_ = (nibbles + (nibbles >> 4)) & 0x0F0F0F0F
    byte, rest = find_byte(bytes_ * 0x01010101, n, 4)
    found, passed = 8 * byte, n * 0
    for index in tl.static_range(7):
        passed += (bits >> (8 * byte + index)) & 1
        found += (passed < rest).to(tl.int32)
    return found


@triton.jit
def find_byte(upto, n, NUMBER: tl.constexpr):
    """The first byte where the running sums `upto` reach n, and how much of n it is left with."""
    byte = n * 0
    for index in tl.static_range(NUMBER - 1):
        byte += (((upto >> (8 * index)) & 255).to(tl.int32) < n).to(tl.int32)
    before = ((upto << 8) >> (8 * byte).to(upto.dtype)) & 255
    return byte, n - before.to(tl.int32)
