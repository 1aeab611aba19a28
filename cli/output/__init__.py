"""What a person reads: messages, tables, and views of jobs."""
