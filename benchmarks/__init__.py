"""Benchmarks: each module measures one thing beside a baseline and yields figures; `run` writes them to LOG.md."""
