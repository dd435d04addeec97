"""The command line `pixr`: its commands, and the context that every package's commands receive."""
