//! Keeps the resident memory small: the C library's allocator is told, before it is first used, to give large
//! blocks back.
//!
//! A password hash takes 19 MiB for a moment. By default the allocator learns from the first one that such blocks
//! are usual, and keeps one for each of its arenas for good. It reads its settings at the start of a program only,
//! so the program starts itself again, once, in the same process.
use std::{os::unix::process::CommandExt, process::Command};

/// (variable, value): few arenas, and every block above 256 KiB is mapped and unmapped by itself.
const SETTINGS: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "262144")];

/// Returns only when the settings are in force, or cannot be.
pub fn tune() {
    if SETTINGS.iter().all(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    for (name, value) in SETTINGS {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    // Failing to start again is no reason not to run: it only costs memory.
    let error = command.exec();
    tracing::debug!(%error, "the allocator keeps its defaults");
}
