"""The science of ddim-flows: sampling, scoring and uncertainty, without a workflow engine."""
