"""Memory, hours and dollars of a run before it is started."""
