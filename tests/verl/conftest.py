"""The programs here are run by verl, or start it: pytest is not to import them for their doctests."""

collect_ignore = ["cpu_platform.py", "cpu_rollout.py", "driver.py", "judge.py", "small.py"]
