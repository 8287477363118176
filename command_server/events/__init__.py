"""EventService: the log, for readers."""
