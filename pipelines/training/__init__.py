"""Training of the bundled model on pictures and captions painted on the fly; calibration and cut. No production code."""
