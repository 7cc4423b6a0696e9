//! Feeds `http_answer` of the connectors with any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_connectors::fuzzing::http_answer(input));
