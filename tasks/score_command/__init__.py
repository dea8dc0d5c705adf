"""`ddim score`: two places in, a score with its whole protocol out as text or JSON."""
