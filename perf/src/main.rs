//! The program `ringcall-perf`.

use std::process::ExitCode;

#[cfg(not(feature = "count-allocations"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<mimalloc::MiMalloc> = &ringcall_perf::COUNTING_ALLOCATOR;

fn main() -> ExitCode {
    ringcall_perf::run()
}
