"""Ingest jobs: their table, leases on videos, the watch over them, and what they report."""
