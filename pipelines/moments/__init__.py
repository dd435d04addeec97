"""Moments: shots found, segments made of them, and the transaction that stores them."""
