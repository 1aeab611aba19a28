"""Print output: messages, tables, and views of jobs."""
