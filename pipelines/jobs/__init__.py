"""Ingest jobs: their table, leases on videos, the watch that submits jobs, and their reports."""
