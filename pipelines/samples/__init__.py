"""Sample videos of a painted world, with the exact truth. No production code."""
