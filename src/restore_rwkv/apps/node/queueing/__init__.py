"""The durable queue, in SQLite: series, their instances, and what has to be sent where."""
