"""What a run leaves behind: checkpoints to go on from, the trained model, the adapter."""
