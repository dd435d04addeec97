"""The package that all others stand on: settings, database, object store, Ray, embedded services. Knows no video, no
money.
"""
