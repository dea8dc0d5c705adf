"""Whether a checkpoint, or a LoRA's file, got better: its rows against another's, cell by cell.

Which cell of one grid is best lies one room above.
"""
