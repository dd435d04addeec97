"""Accrual: recorded appearances become journal entries, within bounds."""
