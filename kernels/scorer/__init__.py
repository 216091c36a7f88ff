"""The CNN that scores tokens for learned eviction, in one launch."""
