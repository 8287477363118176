"""One module a command or a group of commands. They import what they need when they run: `--help` stays quick."""
