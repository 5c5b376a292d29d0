//! A private PostgreSQL server for tests: the real one from Debian's packages, in a directory of its own,
//! as a user without privileges, reached by a socket that only this user and root can open.
//!
//! A small shell stands between: it waits for the end of its standard input, stops the server and removes
//! the directory. So nothing stays behind even when the test is killed.
use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{fs::DirBuilderExt, fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Starting includes making a cluster: seconds on a busy machine.
const START: Duration = Duration::from_secs(60);
const DEFAULT_PORT: u16 = 5432;
const USER: &str = "pilvi";
const GUARD: &str =
    r#"dir=$1; shift; "$@" >"$dir/log" 2>&1 & server=$!; read -r _; kill -INT $server; wait $server; rm -rf "$dir""#;

/// A running server; it stops when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct PostgresServer {
    dir: PathBuf,
    bin: PathBuf,
    owner: Option<(u32, u32)>,
    /// Part of the socket's name too.
    port: u16,
    guard: Child,
    input: Option<ChildStdin>,
    databases: AtomicU32,
}

/// How the server listens beside its socket.
#[derive(Debug, Clone, Default)]
pub struct Tcp {
    /// On 127.0.0.1.
    pub port: u16,
    /// PEM: certificate and key of the server.
    pub tls: Option<(String, String)>,
    /// Of the user `pilvi`; asked for over TCP only.
    pub password: String,
}

/// Where the server's programs are, newest version first; `None` when they are not installed.
pub fn postgres_programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

/// uid and gid of `postgres`, else `nobody`: the server refuses to run as root.
fn unprivileged() -> io::Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m))? != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    for name in ["postgres", "nobody"] {
        let line = users.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|l| l[0] == name && l.len() > 3);
        if let Some(ids) = line.and_then(|l| Some((l[2].parse().ok()?, l[3].parse().ok()?))) {
            return Ok(Some(ids));
        }
    }
    Err(io::Error::new(ErrorKind::NotFound, "neither postgres nor nobody is a user here"))
}

fn command(program: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir("/");
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    command
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr))))
}

impl PostgresServer {
    /// Starts a server without TCP; `None` when PostgreSQL is not installed.
    pub fn start() -> io::Result<Option<Self>> {
        Self::start_with(None)
    }

    /// The one server of this process, for tests that run side by side.
    pub fn shared() -> io::Result<Option<&'static Self>> {
        static SHARED: OnceLock<Result<Option<PostgresServer>, String>> = OnceLock::new();
        match SHARED.get_or_init(|| Self::start().map_err(|error| error.to_string())) {
            Ok(server) => Ok(server.as_ref()),
            Err(error) => Err(io::Error::other(error.clone())),
        }
    }

    pub fn start_with(tcp: Option<&Tcp>) -> io::Result<Option<Self>> {
        let Some(bin) = postgres_programs() else { return Ok(None) };
        let owner = unprivileged()?;
        let dir = std::env::temp_dir().join(format!("pilvi-pg-{:016x}", rand::random::<u64>()));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        if let Some((uid, gid)) = owner {
            chown(&dir, Some(uid), Some(gid))?;
        }
        let data = dir.join("data");
        let mut initdb = command(&bin.join("initdb"), owner);
        initdb.arg("-D").arg(&data).args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        succeed(&mut initdb)?;
        let mut guard = command(Path::new("/bin/sh"), owner);
        guard.args(["-c", GUARD, "sh"]).arg(&dir).arg(bin.join("postgres"));
        guard.arg("-D").arg(&data).arg("-k").arg(&dir).stdin(Stdio::piped()).process_group(0);
        for setting in ["fsync=off", "shared_buffers=32MB", "max_connections=100"] {
            guard.args(["-c", setting]);
        }
        listen(&mut guard, tcp, &data, owner)?;
        let mut guard = guard.spawn()?;
        let input = guard.stdin.take();
        let port = tcp.map_or(DEFAULT_PORT, |tcp| tcp.port);
        let server = PostgresServer { dir, bin, owner, port, guard, input, databases: AtomicU32::new(0) };
        server.wait()?;
        if let Some(tcp) = tcp {
            server.sql(&format!("ALTER USER {USER} PASSWORD '{}'", tcp.password))?;
        }
        Ok(Some(server))
    }

    /// Waits until it answers.
    fn wait(&self) -> io::Result<()> {
        let started = Instant::now();
        while let Err(error) = self.sql("SELECT 1") {
            if started.elapsed() > START {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("PostgreSQL did not start: {error}\n{log}")));
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs one statement as the server's owner.
    pub fn sql(&self, sql: &str) -> io::Result<()> {
        let mut psql = command(&self.bin.join("psql"), self.owner);
        psql.arg("-h").arg(&self.dir).args(["-p", &self.port.to_string(), "-U", USER, "-d", "postgres", "-qAtc", sql]);
        succeed(&mut psql)
    }

    /// Makes an empty database and returns its URL by the socket.
    pub fn database(&self) -> io::Result<String> {
        let name = self.database_name()?;
        let host = self.dir.to_string_lossy().replace('/', "%2F");
        Ok(format!("postgres://{USER}@{host}:{}/{name}", self.port))
    }

    /// Makes an empty database and returns its name.
    pub fn database_name(&self) -> io::Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}"))?;
        Ok(name)
    }
}

fn listen(guard: &mut Command, tcp: Option<&Tcp>, data: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some(tcp) = tcp else {
        guard.args(["-c", "listen_addresses="]);
        return Ok(());
    };
    guard.args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={}", tcp.port)]);
    private_file(&data.join("pg_hba.conf"), "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n", owner)?;
    if let Some((certificate, key)) = &tcp.tls {
        private_file(&data.join("server.crt"), certificate, owner)?;
        private_file(&data.join("server.key"), key, owner)?;
        guard.args(["-c", "ssl=on"]);
    }
    Ok(())
}

fn private_file(path: &Path, text: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    match owner {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.guard.wait();
    }
}
