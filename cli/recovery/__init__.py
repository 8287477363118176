"""Brings log, stream and read models back to one history."""
