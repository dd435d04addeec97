"""The command line `pixr`: its commands, and what every package's commands are given."""
