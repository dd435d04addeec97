"""The child process that touches untrusted bytes: how it is started, asked, and what it answers."""
