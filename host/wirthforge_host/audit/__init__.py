"""The audit log: who did what, and whether it was allowed, in a chain that shows later changes."""
