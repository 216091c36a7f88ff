"""Cross-entropy of logits as they are, without a copy of them in float32."""
