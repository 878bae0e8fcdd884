"""Received files on disk: each whole or not at all, and safe once its sender is answered."""
