"""What `python -m runs.sweep` is made of: the grid's file, the blocks' work, the engines that start it, and the status."""
