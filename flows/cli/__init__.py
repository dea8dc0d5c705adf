"""The `ddim` command's door: which commands there are, and how a wrong word or Ctrl-C ends.

Each command is in `commands`, what it prints of rows in `text`.
"""
