"""Anyone's checkpoint to the one layout that sampling knows, and that layout opened.

A new format starts in `formats`. What may be read at all is settled in `safe_files`; the networks
that come out are called through `networks`; bases of LoRAs are opened part by part in `text2image`.
"""
