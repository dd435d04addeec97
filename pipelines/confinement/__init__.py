"""What a process that touches untrusted bytes is confined by: layers of the kernel, each of its own, and its limits."""
