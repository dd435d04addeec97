"""The sandbox: the child processes that touch untrusted bytes, how they are started and asked, and checks of their answers."""
