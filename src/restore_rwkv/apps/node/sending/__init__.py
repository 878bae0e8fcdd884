"""Derived series go to their destinations, by C-STORE or STOW-RS."""
