"""The commands. Each module is named after its command."""
