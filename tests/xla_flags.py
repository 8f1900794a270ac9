"""Flags of XLA that tests set; importing this sets none."""

TWO_DEVICES = "--xla_force_host_platform_device_count=2"
PLAIN_CODE = "--xla_backend_optimization_level=0"  # compiled in less than half the time; tests compute little with it
