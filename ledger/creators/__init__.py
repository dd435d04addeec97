"""Creators, as far as money goes: earnings, wallets, live counters."""
