"""Environment of the command line, set before torch is imported.

Idle OpenMP threads that spin take the cores from the thread that works: on two busy cores a step becomes 20 times slower.
"""

import os

for _name, _value in (
    ("OMP_WAIT_POLICY", "PASSIVE"),
    ("GOMP_SPINCOUNT", "0"),
    ("KMP_BLOCKTIME", "0"),
    ("TOKENIZERS_PARALLELISM", "false"),
):
    os.environ.setdefault(_name, _value)
