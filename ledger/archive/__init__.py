"""The archive: old rows of the ledger's tables as objects in the object store, proven by hashes in the database."""
