"""Payouts: planned, signed, sent, settled; and people's requests to end batches that are stuck."""
