"""The catalogue: the tables of videos and creators, their public ids, and lists of them."""
