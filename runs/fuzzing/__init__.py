"""What `runs.fuzz` feeds the library with, by kind, and how it tells an answer from a failure."""
