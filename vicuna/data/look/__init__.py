"""Looking at what a cleaning left: its report and the verbs that show, count, sample, merge and explain."""
