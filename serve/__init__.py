"""HTTP: search, playback, jobs, earnings and the page. Owns schema `app`; stands on pipelines, ledger and cluster."""
