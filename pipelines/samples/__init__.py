"""Sample videos of a painted world, with exact ground truth. No production code."""
