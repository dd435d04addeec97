"""Training of the bundled model: pictures and captions painted on the fly, two towers, and the calibration after."""
