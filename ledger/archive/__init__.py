"""The archive: what is old leaves the ledger's tables for objects outside of the database, which its hashes vouch for."""
