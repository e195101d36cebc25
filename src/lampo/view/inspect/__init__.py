"""The rollout viewer, `lampo inspect`: what a group was, and why it was pushed as it was. See docs/viewer.md."""
