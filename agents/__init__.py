"""Runnable agents."""
