"""The services that Pixr runs itself, and the supervisor that keeps them running."""
