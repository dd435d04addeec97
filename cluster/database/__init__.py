"""PostgreSQL: connections, migrations, and the roles that the parts of Pixr work as."""
