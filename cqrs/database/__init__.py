"""Opening databases and keeping their schemas: what write DB and read DB have in common."""
