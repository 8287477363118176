"""The command side: decides on commands, appends events to the log, relays it to the stream, and serves it."""
