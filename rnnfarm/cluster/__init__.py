"""Training in several processes, as Ray actors."""
