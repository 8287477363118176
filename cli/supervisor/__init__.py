"""`orderstream up`: runs the broker and the servers as child processes, and the demo."""
