"""The linear recurrence with a matrix state per head."""
