"""Tools that show how a process is doing: JSON logs, health checks, a stopwatch."""
