"""The query server: answers from the read DB, through a cache that never hides what a client has already seen."""
