"""Creators' money as the HTTP interface shows it, and the wallets that manifests claim."""
