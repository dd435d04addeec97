"""Ingest: from an S3 object to rows of segments. Owns the schema `media`, the decoders and the encoder."""
