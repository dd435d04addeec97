"""From an S3 object to rows of segments: schema `media`, the decoder, the encoder."""
