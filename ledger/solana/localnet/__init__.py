"""A Solana JSON-RPC server for one machine, over LiteSVM. Knows nothing of Pixr's money."""
