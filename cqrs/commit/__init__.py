"""From commands to events: deciding in memory, and group commit."""
