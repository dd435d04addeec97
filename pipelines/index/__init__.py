"""The search index: candidates by vector and by words, and the care of the vector indexes."""
