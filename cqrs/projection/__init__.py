"""The projection engine: applies the log to read models, each event with effect exactly once."""
