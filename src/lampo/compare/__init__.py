"""Methods x seeds (x tasks), compared fairly: `lampo compare STUDY.yaml`."""
