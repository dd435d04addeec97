"""Reference pages that are written from the code: one of all settings, one of all metrics."""
