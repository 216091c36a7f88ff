"""A recurrence of a spec's own equations in one launch each way, token by token."""
