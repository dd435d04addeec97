"""What HTTP needs on every route: problems, deadlines, gates, bodies, manners. Imports little else of this package."""
