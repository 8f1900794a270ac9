"""Contestants: this project and other programs, each started by name in a process of its own."""
