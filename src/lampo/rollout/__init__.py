"""Policy, prompts -> rollouts: one Protocol, one file per engine."""
