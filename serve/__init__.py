"""HTTP: search, playback, jobs, earnings and the page. Owns schema `app`; uses pipelines, ledger and cluster."""
