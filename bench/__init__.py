"""`make bench`: the system beside a bare gRPC echo, in the same minutes, with the same client."""
