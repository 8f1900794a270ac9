"""Where runs happen: on this machine; what is done already is skipped, what is unfinished is picked up."""
