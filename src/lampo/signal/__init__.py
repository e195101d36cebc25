"""`lampo signal`: how much a step improves the policy under each advantage estimator, measured without training."""
