"""Fine-tuning on conversations. `python -m vicuna.train` begins in `__main__`; the training loop is `loop`.

A run, in order: `options` from the flags; `prepare` tokenizes and packs the records and lays down the schedule; the
planner checks that the run fits; the model is built, wrapped and filled; the newest checkpoint is loaded, if there is
one; `loop` does the steps, evaluates and saves; the trained model is exported as a Hugging Face directory.

To read in this order:

- `options`: flags and config file as one frozen `TrainOptions`
- `loop`: the rows of a step, forward, backward, optimizer; evaluation and checkpoints
- `prepare`: config, tokenizer, examples, rows and schedule of a run, checked before any weight is read
- `batches`: records to batches of packed rows
- `model`: the model in training: attention, loss, adapters, sharding
- `optim`: the optimizer and the learning rate
- `watch`: metrics, held-out loss, generations, and the guards of the weights
- `save`: checkpoints, the exported model, the adapter, the output directory
- `waiting`: how threads wait for each other
- `ranks`: the processes of a run
- `signals`: stop signals, on which all ranks agree
- `planner`: memory, hours and dollars of a run
"""
