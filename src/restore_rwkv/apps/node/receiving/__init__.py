"""C-ECHO and C-STORE: what peers send goes into the spool and the queue."""
