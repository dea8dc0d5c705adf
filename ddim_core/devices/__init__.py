"""What the project does with a GPU: its arithmetic, its memory, networks that run there as they
should. Nothing here is used on a CPU that draws as CPUs do, but for what scores ask in float64."""
