"""HTTP: search, playback, jobs, earnings and the web page. Owns schema `app`; stands on pipelines, ledger and cluster."""
