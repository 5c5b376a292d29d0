//! One cloud of a story: its directory, port and names, the programs it runs, and the proof that nothing is left.
//!
//! ```text
//!  open -> up | serve + agents -> calls, guests, crashes -> finish: down, then nothing of it may be found
//!                                        '-- a panic on the way: down all the same, without judging
//! ```
//! Every site has a directory, a port and prefixes of its own, so stories and whole runs do not meet.
use crate::{Api, Program, kernel, pause};
use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The program under test: `PILVI_BIN`, else beside this test's own folder.
#[must_use]
pub fn program_path() -> PathBuf {
    if let Some(path) = env::var_os("PILVI_BIN") {
        return path.into();
    }
    let own = env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).unwrap_or(Path::new("target/debug")).join("pilvi")
}

fn cache() -> PathBuf {
    let own = || env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|h| Path::new(&h).join(".cache"));
    let given = env::var_os("PILVI_TEST_CACHE").map(PathBuf::from);
    given.or_else(|| Some(own().or_else(home)?.join("pilvi-tests"))).unwrap_or_else(|| "/tmp/pilvi-tests".into())
}

/// The folder of the real clients; made on first use.
fn client() -> Result<&'static Path> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = FOLDER.get() {
        return Ok(folder);
    }
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("venv");
    let output = Command::new(make).arg("client").env("PILVI_TEST_CACHE", cache()).stderr(Stdio::inherit()).output()?;
    Ok(FOLDER.get_or_init(|| good("tests/venv client", &output).unwrap().trim().into()))
}

/// A command that none of the caller's own cloud settings reach.
fn without_os(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("OS_")) {
        command.env_remove(name);
    }
    command.env("PYTHONWARNINGS", "ignore").stdin(Stdio::null());
    command
}

/// The name of a state directory's networks, as the program makes it.
#[must_use]
pub fn prefix(state: &Path) -> String {
    format!("pv{}", &hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()))[..6])
}

/// A free port below those that the kernel gives to clients.
#[must_use]
pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(15_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A host of a site: an agent with a state directory of its own.
#[derive(Debug, Clone)]
pub struct Host {
    pub name: String,
    /// What `--state-dir` says; the agent's own files lie in `agent` below it.
    pub state: PathBuf,
}

impl Host {
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.state.join("agent")
    }
    #[must_use]
    pub fn prefix(&self) -> String {
        prefix(&self.state)
    }
}

#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    pub state: PathBuf,
    pub port: u16,
    hosts: Vec<Host>,
    finished: bool,
}

impl Site {
    pub fn open(story: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("pilvi-{story}-")).tempdir()?;
        let folder_path = folder.path().canonicalize()?;
        let site =
            Site { state: folder_path.join("state"), folder, port: free_port(), hosts: Vec::new(), finished: false };
        println!("{story}: state in {}, port {}", site.state.display(), site.port);
        Ok(site)
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
    /// Where the starter image lies, built at most once for all stories.
    #[must_use]
    pub fn starter(&self) -> PathBuf {
        cache().join("starter")
    }
    /// The namespaces of `up`'s own host.
    #[must_use]
    pub fn prefix(&self) -> String {
        prefix(&self.state)
    }
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.state.join("agent")
    }

    /// Writes `pilvi.toml` before the first start.
    pub fn configure(&self, text: &str) -> Result<()> {
        fs::create_dir_all(&self.state)?;
        Ok(fs::write(self.state.join("pilvi.toml"), text)?)
    }

    fn arguments(&self, verb: &str, more: &[&str]) -> Vec<String> {
        let listen = format!("127.0.0.1:{}", self.port);
        let mut all = vec![verb.to_owned(), "--state-dir".into(), self.state.display().to_string()];
        if matches!(verb, "up" | "serve") {
            all.extend(["--listen".to_owned(), listen]);
        }
        if verb == "up" {
            all.extend(["--cache-dir".to_owned(), cache().display().to_string()]);
        }
        all.extend(more.iter().map(|m| (*m).to_owned()));
        all
    }

    /// Starts `pilvi up`; returns at once.
    pub fn up(&self, more: &[&str]) -> Result<Program> {
        self.up_by(&program_path(), more)
    }

    /// The same, by this program.
    pub fn up_by(&self, program: &Path, more: &[&str]) -> Result<Program> {
        Program::start(program, &self.arguments("up", more), &self.folder().join("up.out"))
    }

    /// Starts `pilvi serve`; returns at once.
    pub fn start_serve(&self) -> Result<Program> {
        Program::start(&program_path(), &self.arguments("serve", &[]), &self.folder().join("serve.out"))
    }

    /// Starts `pilvi serve` and waits until it answers.
    pub fn serve(&self) -> Result<Program> {
        let mut program = self.start_serve()?;
        program.wait_line("pilvi serves", Duration::from_secs(60))?;
        Ok(program)
    }

    /// A new host: joins with a fresh token. `settings` are further lines of the agent's TOML file.
    pub fn host(&mut self, name: &str, settings: &str) -> Result<Host> {
        let host = Host { name: name.to_owned(), state: self.state.with_file_name(name) };
        fs::create_dir_all(&host.state)?;
        let token = self.run("node", &["token", "--host", name])?;
        fs::write(host.state.join("token"), token.trim())?;
        let text = format!(
            "state_dir = \"{}\"\nprefix = \"{}\"\nvmm_command = [\"{}\", \"vmm\"]\n{settings}\n",
            host.agent().display(),
            host.prefix(),
            program_path().display()
        );
        fs::write(host.state.join("agent.toml"), text)?;
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// Starts the agent of a host.
    pub fn start_agent(&self, host: &Host) -> Result<Program> {
        let at = |name: &str| host.state.join(name).display().to_string();
        let arguments = [
            "agent",
            "--state-dir",
            &host.state.display().to_string(),
            "--scheduler",
            &self.url(),
            "--name",
            &host.name,
            "--join-token-file",
            &at("token"),
            "--agent-config",
            &at("agent.toml"),
        ];
        let log = self.folder().join(format!("agent-{}.out", host.name));
        Program::start(&program_path(), &arguments.map(str::to_owned), &log)
    }

    /// Runs a `pilvi` command to its end and gives what it printed.
    pub fn run(&self, verb: &str, more: &[&str]) -> Result<String> {
        let output = Command::new(program_path()).args(self.arguments(verb, more)).stdin(Stdio::null()).output()?;
        good(&format!("pilvi {verb}"), &output)
    }

    /// Logged in as the administrator.
    pub fn admin(&self) -> Result<Api> {
        let password = fs::read_to_string(self.state.join("admin-password"))?;
        self.api()?.login("admin", password.trim(), "admin")
    }
    /// Logged in as the user that `up` makes.
    pub fn demo(&self) -> Result<Api> {
        let password = fs::read_to_string(self.state.join("demo-password"))?;
        self.api()?.login("demo", password.trim(), "demo")
    }
    /// Nobody yet.
    pub fn api(&self) -> Result<Api> {
        Api::open(&self.url(), &self.state.join("pki/ca.pem"))
    }

    /// The real `openstack` client as `cloud` of the written `clouds.yaml`.
    pub fn openstack(&self, cloud: &str, arguments: &[&str]) -> Result<String> {
        let begin = Instant::now();
        let output = without_os(&client()?.join("bin/openstack"))
            .args(arguments)
            .env("OS_CLIENT_CONFIG_FILE", self.state.join("clouds.yaml"))
            .env("OS_CLOUD", cloud)
            .output()?;
        println!("  [{:5.1} s] openstack {}", begin.elapsed().as_secs_f64(), arguments.join(" "));
        good(&format!("openstack {}", arguments.join(" ")), &output)
    }

    /// The same, with the answer as JSON.
    pub fn openstack_json(&self, cloud: &str, arguments: &[&str]) -> Result<Value> {
        let text = self.openstack(cloud, &[arguments, &["-f", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// The tours of `tests/client` with these names, as the administrator.
    pub fn tour(&self, names: &[&str]) -> Result<()> {
        let password = fs::read_to_string(self.state.join("admin-password"))?;
        let tour = Path::new(env!("CARGO_MANIFEST_DIR")).join("client/tour");
        let status = without_os(&client()?.join("bin/python"))
            .arg(tour)
            .args(names)
            .env("OS_AUTH_URL", format!("{}/identity/v3", self.url()))
            .env("OS_CACERT", self.state.join("pki/ca.pem"))
            .env("OS_USERNAME", "admin")
            .env("OS_PASSWORD", password.trim())
            .env("OS_PROJECT_NAME", "admin")
            .env("OS_USER_DOMAIN_ID", "default")
            .env("OS_PROJECT_DOMAIN_ID", "default")
            .env("OS_REGION_NAME", "RegionOne")
            .status()?;
        ensure!(status.success(), "tours {names:?}: {status}");
        Ok(())
    }

    /// Runs one command in a guest, trying until ssh answers.
    pub fn ssh(&self, address: &str, command: &str, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            let tried = self.ssh_once(address, command)?;
            if tried.status.code() != Some(255) {
                return good(&format!("ssh {address} {command}"), &tried);
            }
            if Instant::now() > end {
                bail!("{address} does not answer ssh: {}", String::from_utf8_lossy(&tried.stderr));
            }
            pause(Duration::from_millis(300));
        }
    }

    /// Runs one command in a guest, whatever comes of it: status 255 is ssh's own failure.
    pub fn ssh_once(&self, address: &str, command: &str) -> Result<Output> {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(self.state.join("ssh_config"));
        ssh.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", address, command]).stdin(Stdio::null());
        ssh.output().context("ssh")
    }

    /// Everything that the programs wrote.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = fs::read_to_string(self.state.join("pilvi.log")).unwrap_or_default();
        for file in kernel::files(self.folder()).iter().filter(|f| f.extension().is_some_and(|e| e == "out")) {
            text.push_str(&fs::read_to_string(file).unwrap_or_default());
        }
        text
    }

    fn down_all(&self) -> Result<()> {
        for host in &self.hosts {
            let state = host.state.display().to_string();
            let output = Command::new(program_path()).args(["down", "--state-dir", &state]).output()?;
            good("pilvi down", &output)?;
        }
        self.run("down", &[]).map(drop)
    }

    /// `down`, then asks the kernel: no process, mount, namespace or file of this site may be left.
    pub fn finish(mut self) -> Result<()> {
        let panics: Vec<String> = self.logs().lines().filter(|l| l.contains("panicked")).map(str::to_owned).collect();
        ensure!(panics.is_empty(), "a program panicked: {panics:#?}");
        self.down_all()?;
        self.finished = true;
        let folder = self.folder().canonicalize()?;
        ensure!(!self.state.exists(), "{} is still there", self.state.display());
        let processes = kernel::processes(&folder);
        ensure!(processes.is_empty(), "processes are left: {processes:#?}");
        let mounts = kernel::mounts(&folder);
        ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
        let prefixes = self.hosts.iter().map(Host::prefix).chain([self.prefix()]);
        let left: Vec<String> = prefixes.flat_map(|p| kernel::namespaces(&p)).collect();
        ensure!(left.is_empty(), "namespaces are left: {left:?}");
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let logs = self.logs();
        let lines: Vec<&str> = logs.lines().filter(|l| !l.contains("INFO")).collect();
        println!("--- the site's last words\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        if let Err(error) = self.down_all() {
            println!("--- down: {error:#}");
        }
    }
}

fn good(what: &str, output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{what}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(text)
}
