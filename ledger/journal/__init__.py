"""The journal: accounts, entries and postings, written once and never changed."""
