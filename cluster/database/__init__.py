"""PostgreSQL: connections, migrations, and as whom each part of Pixr comes there."""
