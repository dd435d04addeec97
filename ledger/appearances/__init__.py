"""Appearances: what was shown to whom, from the spool of a replica into the database."""
