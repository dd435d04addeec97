"""The commands `pixr payouts`, `pixr audit`, `pixr backup` and `pixr restore`."""
