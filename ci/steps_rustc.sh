#!/bin/sh
# rustc for this workspace's own crates with the atomics that tell (`src/base/steps.rs`), as cargo's
# RUSTC_WORKSPACE_WRAPPER: what they depend on is not built again, as RUSTFLAGS would have it.
exec "$@" --cfg spandrel_steps
