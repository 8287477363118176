"""The event store: the log of events with its head, and the outcomes of commands."""
