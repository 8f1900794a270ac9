"""What measures: turns, processes, the machine, sentences."""
