"""Backups of the write DB on SQLite. Everything else is made again from the log."""
