"""Observe the worker: logs, metrics, and events for Flower."""
