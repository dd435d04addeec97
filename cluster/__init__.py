"""What all other packages stand on: settings, database, object store, Ray, embedded services. Knows no video, no money."""
