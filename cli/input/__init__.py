"""What a command line says: options, times, rows of files, ids of jobs."""
