"""The method: rewards and log-probabilities in, advantages and a loss out. It imports torch, and nothing else of this package."""
