"""The commands `pixr search`, `pixr index`, `pixr keys` and `pixr docs`."""
