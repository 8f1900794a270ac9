"""Kernels written for accelerators (model.kernels=pallas), each beside the plain JAX that it has to agree with."""
