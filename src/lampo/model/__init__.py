"""The policy: where its weights come from, the tokens it reads, and the log-probabilities it gives."""
