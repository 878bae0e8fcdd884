"""What is done with each series that is complete, and the workers that restore it."""
