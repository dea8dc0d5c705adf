"""What every room may use: digests, versions, plain files, printable names, secrets kept out.

Nothing here knows of images, networks or scores; what only one room needs lives in that room.
"""
