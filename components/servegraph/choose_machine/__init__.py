"""choose_machine: picks the machine from the measured size; the rules are in `servegraph.machines`."""
