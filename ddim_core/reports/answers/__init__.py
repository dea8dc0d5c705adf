"""What a report says before all else: what to do, how sure that is, what it costs, what is open."""
