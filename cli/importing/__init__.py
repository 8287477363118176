"""`orderstream import`: reads purchases from a file and sends them as commands."""
