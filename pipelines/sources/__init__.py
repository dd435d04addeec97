"""Sources of videos: S3 prefixes, local folders, uploads, and the manifests that describe their videos."""
