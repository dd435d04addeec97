"""What the HTTP interface shows of creators' earnings, and the wallets that manifests claim."""
