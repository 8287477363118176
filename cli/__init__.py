"""The `orderstream` command: runs the servers, sends commands and queries, imports, watches and audits.

Importing this package or any of its command modules is cheap: gRPC, SQLAlchemy and the servers are imported by the
commands that use them, when they run.
"""
