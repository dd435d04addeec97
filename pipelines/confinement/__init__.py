"""Confinement of processes that touch untrusted bytes: layers of the kernel, independent of each other, and resource limits."""
