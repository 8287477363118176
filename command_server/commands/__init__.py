"""The command services: one file an aggregate, each with its field rules and its RPCs."""
