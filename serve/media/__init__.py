"""Links to pictures and videos, and the objects in the store that they lead to."""
