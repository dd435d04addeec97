"""The audit: do balances, payouts and the chain agree, what has been open for too long, was anything rewritten?"""
