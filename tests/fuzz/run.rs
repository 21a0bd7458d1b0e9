//! Around every target of the fuzz programs: the bound on memory.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// No input takes more than this beyond what a valid file of its size takes.
pub const BEYOND: usize = 64 << 20;

/// The same for the targets whose own model of disks takes memory: up to 16 MiB for each of some copies.
pub const WITH_MODEL: usize = BEYOND + (192 << 20);

/// Bytes for each byte of input that a valid file takes: its copies in the harness, a model of what they hold, the
/// BAT and the copy of it that is sorted.
const PER_BYTE: usize = 64;

/// Calls `target` and looks at the memory that it took: at most `beyond` and what the input's length explains.
pub fn bounded(data: &[u8], beyond: usize, target: fn(&[u8])) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    target(data);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let limit = beyond + data.len() * PER_BYTE;
    assert!(taken <= limit, "{taken} bytes taken, {limit} allowed");
}
