//! Builds the image from the command line, for whoever works on the recipe: `cargo run -p pilvi-starter --example
//! build -- OUT CACHE [tools]`. Users call `pilvi image build`.

use std::process::ExitCode;

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(out), Some(cache)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: build OUT CACHE [tools]");
        return ExitCode::from(2);
    };
    let kind = if arguments.next().is_some_and(|a| a == "tools") {
        pilvi_starter::Kind::Tools
    } else {
        pilvi_starter::Kind::Starter
    };
    let start = std::time::Instant::now();
    let progress = |line: &str| println!("{:6.2} s  {line}", start.elapsed().as_secs_f64());
    match pilvi_starter::build(&pilvi_starter::Request {
        kind,
        out: out.into(),
        cache: cache.into(),
        progress: &progress,
    }) {
        Ok(built) => {
            println!("{} {}", built.manifest.image.sha256, built.image.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
