"""The search index: candidates by vector and by words, highlights, and maintenance of the vector indexes."""
