"""What tuning can be asked for, and what its settings share; the flow itself is `flows.tune`."""
