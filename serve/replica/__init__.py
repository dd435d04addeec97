"""What a replica keeps and watches: connections, the catalogue's generation, kept answers, the encoder, its own health."""
