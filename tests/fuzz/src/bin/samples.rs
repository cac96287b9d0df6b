//! Writes the samples from which each target starts into the folder that `SAMPLES` names. A target itself, because whatever is
//! compiled with coverage must be linked with the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        let dir = std::env::var_os("SAMPLES").expect("SAMPLES names a folder");
        fuzz::samples::write(std::path::Path::new(&dir)).expect("the folder can be written");
    },
    |_data: &[u8]| {}
);
