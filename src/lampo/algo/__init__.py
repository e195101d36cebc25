"""The method: rewards and log-probabilities in, advantages and a loss out. Pure torch; nothing else of this package."""
