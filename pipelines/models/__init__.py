"""Models: the encoder, the table of registered models, and the calibration of cosines."""
