//! The `pilvi` program.
fn main() {}
