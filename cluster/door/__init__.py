"""The HTTP door: HAProxy, run as a service, in front of the replicas and the object store."""
