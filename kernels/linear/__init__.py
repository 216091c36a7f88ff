"""Products of few rows with weight matrices: what a step of a small batch is made of."""
