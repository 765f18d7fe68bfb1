//! The binary `auricle`.
fn main() {}
