"""Where videos come from: buckets, folders, uploads, and what manifests say of them."""
