"""Moments: finding shots, making segments of them, and the transaction that stores them."""
