"""From the log to the JetStream stream: every event once, in order, at the sequence that is its position."""
