"""Norms over channels, fused with what stands beside them."""
