//! The small program around the library; `pilvi vmm` calls the same function.

fn main() -> std::process::ExitCode {
    pilvi_vmm::main_with(std::env::args_os().skip(1))
}
