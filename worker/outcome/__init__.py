"""Classify attempts, and decide what happens to the job and its page."""
