"""The drill: faults while commands run, and hostile input for every reader. `make drill`."""
