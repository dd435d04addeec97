"""The ground: what every room stands on. Knows no video and no money, and imports none of the other packages."""
