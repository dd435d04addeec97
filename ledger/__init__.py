"""Everything from an appearance to a settled payout. Owns schema `ledger`; the only user of solana and solders."""
