"""Solana: nodes, transactions, keys, the treasury. The only code that knows the chain."""
