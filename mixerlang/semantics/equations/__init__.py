"""Recurrences of a spec's own equations: checked, compared with the space of recurrence(...), and
lowered to a point of it, or to a scan."""
