"""The HTTP door: HAProxy as a service of ours, before the replicas of Serve and the object store."""
