"""Every method of the paper's Table 2 on simulated and on human feedback: `python -m alpacafarm.table2`."""
