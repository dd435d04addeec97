"""From a file to frames: what it is, how it is cut into chunks, and the one place that decodes."""
