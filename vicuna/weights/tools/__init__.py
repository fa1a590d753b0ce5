"""Tools on whole checkpoints and adapters: cast, merge, inspect, verify."""
