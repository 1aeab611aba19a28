"""Parse the command line's input: options, times, rows of files, and job ids."""
