# Short names for the scripts, which work without make as well.

.PHONY: check test test-aarch64 count-aarch64

# What a change must pass.
check:
	.ci/run

test:
	scripts/test

# The kernels on emulated AArch64 CPUs; `scripts/test-aarch64 --all` for the whole workspace.
test-aarch64:
	scripts/test-aarch64

# The instructions that the AArch64 kernels take.
count-aarch64:
	scripts/count-aarch64
