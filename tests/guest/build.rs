//! Link arguments of a program without an operating system.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=guest.ld");
    let script = format!("-Wl,-T,{dir}/guest.ld");
    let args = ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,norelro"];
    for arg in args.into_iter().chain(["-Wl,-z,max-page-size=4096", &script]) {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
