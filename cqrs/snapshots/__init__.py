"""Snapshots: states of aggregates kept so that not all of their events must be folded. Never needed, only quicker."""
