"""What a decoding step of a recurrence layer does, between its projections; data alone.

Of each new token it convolves the projected q, k and v, maps them, forms decay and step from their
own projections, moves the state on, and norms and gates what it reads from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SPAN = 8
"""New tokens per sequence that one step takes."""
MAX_CONV = 8
"""Taps of the convolution."""
MAX_KEY_DIM = 512
"""Channels of k, after its map."""

ACTIVATIONS = ("none", "silu", "relu", "elu1")
NORMS = ("none", "l2norm", "softmax")
DECAYS = ("none", "fixed", "scalar", "softplus", "sigmoid")
STEPS = ("none", "decay", "sigmoid")
OUTPUTS = ("none", "rmsnorm", "silu", "sigmoid")


def chain(words: Iterable[str]) -> tuple[str, str] | None:
    """Maps by their words, one after another, as an activation and then a norm; None where they are
    something else."""
    activation, norm = "none", "none"
    for word in words:
        if word in ACTIVATIONS and activation == norm == "none":
            activation = word
        elif word in NORMS and norm == "none":
            norm = word
        elif word != "identity":
            return None
    return activation, norm


def unserved(
    features: Iterable[str], values: Iterable[str], *, rope: bool, conv: int, key_dim: int
) -> str | None:
    """Why kernels do not serve a layer with these maps on q and k, and on v, if so. key_dim:
    channels of k after its maps; rope: whether they are turned then."""
    prepared = rope or chain(features) is None
    if prepared and conv:
        return "no kernel serves these features, or rope, after a convolution"
    found = chain(values)
    if found is None or found[1] != "none":
        return "no kernel serves this map on v"
    if key_dim > MAX_KEY_DIM:
        return f"keys of {key_dim} channels: steps serve 1 to {MAX_KEY_DIM}"
    if conv > MAX_CONV:
        return f"a convolution of {conv} taps: steps serve up to {MAX_CONV}"
    return None


@dataclass(frozen=True)
class StepRule:
    """A point of the space of recurrences, with what stands around it.

    heads: of q and k; value_heads: of v and the state, next to each other for one of q and k.
    conv: taps of the convolution on q, k and v, 0 for none. activation, norm: of q and k after it,
    norm over a head; value_activation: of v. decay: `fixed` is given per value head; `scalar` is
    -exp(A_log) softplus(a + dt_bias) per value head; `softplus` the same and `sigmoid`
    logsigmoid(a) / temperature, per key channel. step: what a token's write is multiplied by: 1,
    the softplus of the scalar decay, or step_scale * sigmoid(b). delta: it writes
    k (v - S^T k)^T in place of k v^T. complement: k = 1 - decay, and no k is given. normalize: the
    result is divided by z . q. skip: D v is added to it. output: RMSNorm, with a gate under `silu`
    or `sigmoid`.
    """

    heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int = 0
    activation: str = "none"
    norm: str = "none"
    value_activation: str = "none"
    decay: str = "none"
    temperature: float = 1.0
    step: str = "none"
    step_scale: float = 1.0
    delta: bool = False
    complement: bool = False
    normalize: bool = False
    skip: bool = False
    output: str = "none"
    eps: float = 1e-6
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.value_heads % self.heads:
            raise ValueError(f"{self.heads} heads do not divide {self.value_heads} value heads")
        if not 1 <= self.key_dim <= MAX_KEY_DIM:
            raise ValueError(f"keys of {self.key_dim} channels: steps serve 1 to {MAX_KEY_DIM}")
        if not 0 <= self.conv <= MAX_CONV:
            raise ValueError(f"a convolution of {self.conv} taps: steps serve up to {MAX_CONV}")
        for word, words in (
            (self.activation, ACTIVATIONS),
            (self.norm, NORMS),
            (self.value_activation, ACTIVATIONS),
            (self.decay, DECAYS),
            (self.step, STEPS),
            (self.output, OUTPUTS),
        ):
            if word not in words:
                raise ValueError(f"{word} is none of {', '.join(words)}")
        if (self.step == "decay" and self.decay != "scalar") or (
            self.complement and self.decay not in ("softplus", "sigmoid")
        ):
            raise ValueError(f"decay {self.decay} gives no step, or no key")

    @property
    def group(self) -> int:
        """Value heads for each head of q and k."""
        return self.value_heads // self.heads

    @property
    def ring(self) -> int:
        """Tokens whose inputs a state holds: those of a step, those of the one before, which may be
        taken back, and what the convolution reads before them."""
        return 2 * SPAN + max(0, self.conv - 1)

    @property
    def widths(self) -> dict[str, int]:
        """Channels of what each token brings, by name; the gate aside, a state holds them."""
        keys, values = self.heads * self.key_dim, self.value_heads * self.value_dim
        found = {"q": keys, "k": 0 if self.complement else keys, "v": values}
        found["a"] = {"scalar": self.value_heads, "softplus": keys, "sigmoid": keys}.get(
            self.decay, 0
        )
        found["b"] = self.value_heads if self.step == "sigmoid" else 0
        return {name: width for name, width in found.items() if width}

    @property
    def kept(self) -> dict[str, int]:
        """Channels of what the state holds of its last tokens."""
        return {name: width for name, width in self.widths.items() if name != "q" or self.conv}

    @property
    def channels(self) -> int:
        """Under the convolution: of q, then k, then v."""
        return sum(self.widths.get(name, 0) for name in "qkv")

    @property
    def in_conv(self) -> bool:
        """Whether what follows the convolution goes along with it, for many tokens."""
        maps = {self.activation, self.norm, self.value_activation}
        return self.conv > 0 and maps <= {"none", "silu", "l2norm"}

    def part(self, name: str) -> tuple[int, bool, int]:
        """Of q, k or v under the convolution: its channels, whether SiLU follows, and channels of
        the heads that are then normed (0: none)."""
        if not self.in_conv:
            return self.widths[name], False, 0
        if name == "v":
            return self.widths[name], self.value_activation == "silu", 0
        head_dim = self.key_dim if self.norm == "l2norm" else 0
        return self.widths[name], self.activation == "silu", head_dim

    def flops(self, sequences: int, tokens: int) -> int:
        """Of the products with the state: reading, writing, and what the delta rule reads first."""
        cells = self.value_heads * self.key_dim * self.value_dim
        return 2 * sequences * tokens * cells * (2 + self.delta)
