"""One file a view: what each query checks, reads and answers."""
