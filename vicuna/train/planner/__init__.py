"""Memory, hours and dollars of a run before it is started.

- `options`: the flags of a plan
- `known_plans`: plans that were made before
- `report`: the plan of a run, with the arithmetic
- `preflight`: the check of a run that is about to start
- `fit`: whether a run fits into memory, and what does
- `estimate`: the peak memory of a step, run on fake tensors
- `memory`: memory of tensors, counted by allocation
- `workload`: tokens and rows of an epoch, and its largest micro-batch
- `speed`: tokens a second, by published runs
- `hardware`: the tables of GPUs and of models' shapes
"""
