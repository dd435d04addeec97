"""The commands `pixr search`, `pixr index` and `pixr keys`."""
