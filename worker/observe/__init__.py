"""What others see of the worker: logs, metrics, and events for Flower."""
