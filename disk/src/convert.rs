//! Conversion of disks: [`settle`] judges a file and makes of it what is wanted. qcow2 is read here, by a library that opens no other file; what it cannot read is converted
//! by `qemu-img` as a child.
//!
//! The child gets a file that has passed its format's parser, and is told the format: it guesses nothing. It runs with
//! limits on memory, processor time, files and their size, without privileges to gain and, where this process may
//! make one, in a network namespace of its own that has no network.
use crate::{
    format::{Format, Refusal, Rules, judge},
    sparse,
};
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping, file::File as Storage, qcow2::Qcow2};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

/// Bytes converted at a time.
const PIECE: u64 = 1 << 20;
/// Address space of the child, in bytes.
const MEMORY: u64 = 2 << 30;
/// What the tables of a format may take beside the disk.
const OVERHEAD: u64 = 64 << 20;

/// A file, by what it is said to be.
#[derive(Debug, Clone, Copy)]
pub struct Named<'n> {
    pub path: &'n Path,
    pub disk_format: &'n str,
    pub container_format: &'n str,
}

/// What is to become of it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// Raw or qcow2.
    pub format: Format,
    /// Where a new file goes.
    pub target: &'w Path,
    /// Time that it may take.
    pub seconds: u64,
}

/// Why a file cannot be what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Unsettled {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("it cannot be converted: {0}")]
    Failed(io::Error),
}

/// Judges a file and, where it is a disk of another format, makes a new file of the wanted one, durably: then true.
/// Discs, kernels and what is packed in a container stay what they are. Blocks.
///
/// # Errors
/// What is wrong with the file, or stands in the way; something may lie at the target.
pub fn settle(file: Named<'_>, wanted: Wanted<'_>, rules: &Rules) -> Result<bool, Unsettled> {
    let opened = |path: &Path| File::open(path).map_err(|error| Refusal::Unreadable(error.to_string()));
    let size = judge(file.disk_format, file.container_format, &opened(file.path)?, rules)?;
    let from = match Format::named(file.disk_format) {
        Some(Format::Gpt) => Format::Raw,
        Some(from) if from != Format::Iso && file.container_format == "bare" => from,
        _ => return Ok(false),
    };
    if from == wanted.format {
        return Ok(false);
    }
    let job = Job {
        from,
        to: wanted.format,
        source: file.path,
        target: wanted.target,
        virtual_size: size.unwrap_or_default(),
        seconds: wanted.seconds,
    };
    run(&job).map_err(Unsettled::Failed)?;
    // A disk can hold another format's header in its first sector: then it is no disk to keep.
    judge(wanted.format.name(), "bare", &opened(wanted.target)?, rules)?;
    Ok(true)
}

/// One conversion.
#[derive(Debug, Clone, Copy)]
struct Job<'j> {
    from: Format,
    to: Format,
    source: &'j Path,
    target: &'j Path,
    /// Bytes of the disk, as the parser read it.
    virtual_size: u64,
    seconds: u64,
}

/// Converts into a new file, durably. Blocks.
fn run(job: &Job<'_>) -> io::Result<()> {
    let most = Duration::from_secs(job.seconds);
    // On a thread of its own, which may wait.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if (job.from, job.to) == (Format::Qcow2, Format::Raw) {
        let target = sparse::create(job.target)?;
        let deadline = Instant::now() + most;
        runtime.block_on(qcow2_to_raw(File::open(job.source)?, &target, job.virtual_size, deadline))?;
        return target.sync_all();
    }
    let arguments = command(job)?;
    runtime.block_on(child(&arguments, most))?;
    File::open(job.target)?.sync_all()
}

async fn qcow2_to_raw(file: File, target: &File, expected: u64, deadline: Instant) -> io::Result<()> {
    let image = Qcow2::<Storage>::builder(Storage::try_from(file)?)
        .open(DenyImplicitOpenGate::default())
        .await
        .map_err(|error| io::Error::other(format!("no qcow2 image that can be used: {error}")))?;
    let image = FormatAccess::new(image);
    let size = image.size();
    if size != expected {
        return Err(io::Error::other("the header is not what it was"));
    }
    target.set_len(size)?;
    let (mut piece, mut offset) = (vec![0; PIECE as usize], 0);
    while offset < size {
        if Instant::now() > deadline {
            return Err(io::Error::other("it takes too long"));
        }
        let (mapping, length) = image.get_mapping(offset, size - offset).await?;
        if length == 0 {
            return Err(io::Error::other("the image ends too early"));
        }
        if matches!(mapping, Mapping::Zero { .. }) {
            offset += length;
            continue;
        }
        let length = length.min(PIECE);
        let buffer = &mut piece[..length as usize];
        image.read(&mut *buffer, offset).await?;
        if buffer.iter().any(|byte| *byte != 0) {
            target.write_all_at(buffer, offset)?;
        }
        offset += length;
    }
    Ok(())
}

/// As `qemu-img` spells formats.
fn driver(format: Format) -> &'static str {
    match format {
        Format::Vhd => "vpc",
        other => other.name(),
    }
}

/// Does a program run here, with these arguments?
fn works(words: &[&str]) -> bool {
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    words.split_first().is_some_and(|(name, rest)| quiet(Command::new(name).args(rest)))
}

/// What stands before the child's own words; none when this machine cannot limit a child.
static JAIL: LazyLock<Option<Vec<&'static str>>> = LazyLock::new(|| {
    const ALONE: &[&str] = &["unshare", "--net", "--ipc", "--uts"];
    const MEEK: &[&str] = &["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"];
    let fits = |words: &[&'static str]| works(&[words, &["true"]].concat());
    if !works(&["prlimit", "--version"]) {
        return None;
    }
    let mut words = Vec::new();
    if fits(ALONE) {
        words.extend(ALONE);
    }
    if fits(MEEK) {
        words.extend(MEEK);
    } else if fits(&MEEK[..2]) {
        words.extend(&MEEK[..2]);
    }
    Some(words)
});

fn command(job: &Job<'_>) -> io::Result<Vec<String>> {
    let path = |path: &Path| {
        let text = path.to_str().filter(|_| path.is_absolute());
        text.map(str::to_owned).ok_or_else(|| io::Error::other("the file's name cannot be given to a program"))
    };
    let jail = JAIL.as_ref().ok_or_else(|| io::Error::other("prlimit (util-linux) is not installed here"))?;
    let file = job.virtual_size.saturating_add(job.virtual_size / 64).saturating_add(OVERHEAD);
    let mut words: Vec<String> = jail.iter().map(|word| (*word).to_owned()).collect();
    words.extend(["prlimit".to_owned(), format!("--as={MEMORY}"), format!("--cpu={}", job.seconds)]);
    words.extend([format!("--fsize={file}"), "--nofile=64".to_owned(), "--core=0".to_owned(), "--".to_owned()]);
    words.extend(["qemu-img", "convert", "-q", "-f", driver(job.from), "-O", driver(job.to)].map(str::to_owned));
    words.extend([path(job.source)?, path(job.target)?]);
    Ok(words)
}

/// Runs a child, which is killed when it takes too long.
async fn child(arguments: &[String], most: Duration) -> io::Result<()> {
    let running = tokio::process::Command::new(&arguments[0])
        .args(&arguments[1..])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| io::Error::other(format!("{}: {error}", arguments[0])))?;
    let ended = tokio::time::timeout(most, running.wait_with_output()).await;
    let output = ended.map_err(|_| io::Error::other("it takes too long"))??;
    if output.status.success() {
        return Ok(());
    }
    // What it says names files of ours, which are no user's business.
    let said: String = String::from_utf8_lossy(&output.stderr).chars().take(2000).collect();
    tracing::warn!(status = %output.status, said, "qemu-img failed");
    Err(io::Error::other(format!("qemu-img ended with {}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Damage in the header or in a table is a refusal, an error or some content; never a panic or a huge file.
        #[test]
        fn damage_is_survived(flips in proptest::collection::vec((0usize..4, 0usize..300, any::<u8>()), 1..8)) {
            let mut bytes = samples::qcow2(1 << 20);
            for (table, at, value) in flips {
                bytes[(table << 16) + at] = value;
            }
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (dir.path().join("q"), dir.path().join("r"));
            std::fs::write(&from, &bytes).unwrap();
            let file = Named { path: &from, disk_format: "qcow2", container_format: "bare" };
            let wanted = Wanted { format: Format::Raw, target: &to, seconds: 60 };
            match settle(file, wanted, &Rules::of_hosts(1 << 30)) {
                Ok(_) => prop_assert!(to.metadata().unwrap().len() <= 1 << 30),
                Err(_) => prop_assert!(to.metadata().map_or(0, |m| m.len()) <= 1 << 30),
            }
        }
    }
}
