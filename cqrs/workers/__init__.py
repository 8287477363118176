"""Worker processes: they speak gRPC with clients, so that the process that decides and commits has a core to itself."""
