#![no_main]

use vhdkit_fuzz::{run, targets};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::bounded(data, run::BEYOND, targets::inside::run));
