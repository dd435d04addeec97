"""Payouts: planned, signed, sent, settled; and what ends those that have no end by themselves."""
