"""The audit: is every unit where the journal says, what has been open for too long, and has anything been rewritten?"""
