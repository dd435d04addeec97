"""What HTTP asks of every route: problems, deadlines, gates, bodies, manners. Leaves that import none of ours but settings."""
