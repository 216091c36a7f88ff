"""silu(gate) * up, the middle of a SwiGLU feed-forward network, in one launch each way."""
