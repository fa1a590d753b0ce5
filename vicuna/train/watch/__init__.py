"""What is looked at while a model trains: metrics, held-out loss, generations, and the guard of the weights."""
