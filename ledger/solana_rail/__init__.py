"""The rail of Solana: how a batch becomes a transaction of one treasury, and what proves its end."""
