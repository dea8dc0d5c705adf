"""A file for each group of commands: options in, a flow or a task called, an exit code out."""
