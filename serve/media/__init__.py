"""Links to pictures and videos, and the objects that they lead to."""
