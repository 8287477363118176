"""Programs that keep generated files in step with what they are generated from."""
