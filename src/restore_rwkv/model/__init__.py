"""The network, its configuration, and its weight files."""
