"""Orders of administrators: placed, approved, carried out by the ledger."""
