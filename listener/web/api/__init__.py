"""The JSON API: sales, queries, terminals, health."""
