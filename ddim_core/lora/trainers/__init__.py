"""What other trainers' users have at hand: kohya's folders and dataset TOML, ai-toolkit's YAML.

Read for their images and for the options that mean the same here; what else is set is named, never
dropped silently. Nothing is trained here.
"""
