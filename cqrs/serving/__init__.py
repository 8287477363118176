"""The chassis of a server: settings, process, gRPC, health, metrics, logging. What the three servers have in common."""
