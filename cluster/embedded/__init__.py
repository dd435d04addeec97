"""The services that Pixr starts itself, and the supervisor that keeps them running."""
