"""What tells how a process fares: JSON logs, health checks, a stopwatch."""
