"""Models: the encoder, what is known of it, and what its cosines mean."""
