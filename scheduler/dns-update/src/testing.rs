//! A real name server for tests: BIND with private zones, journals and a port of its own, on loopback.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // as in any test
#![allow(clippy::disallowed_methods)] // nobody else waits on this thread
use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const NAMED: &str = "/usr/sbin/named";
/// Base64 of what the server has as its key.
pub const SECRET: &str = "c3RvcnktaW4tc2l4dGVlbi1vci1tb3JlLWJ5dGVz";

/// One server; killed when it is dropped.
#[derive(Debug)]
pub struct Named {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

/// Is BIND installed? Says so where it is not, and is a failure where nothing may be skipped.
#[must_use]
pub fn named_is_here() -> bool {
    let here = fs::exists(NAMED).unwrap_or(false);
    assert!(here || std::env::var_os("PILVI_NO_SKIP").is_none(), "{NAMED} is missing (Debian: bind9)");
    if !here {
        println!("skipped: {NAMED} is missing (Debian: bind9)");
    }
    here
}

/// Waits until `look` finds something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A port that nobody has, neither by TCP nor by UDP.
fn free_port() -> u16 {
    until("a port is free", || {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        UdpSocket::bind(at).is_ok().then_some(at.port())
    })
}

impl Named {
    /// Has these zones, of which its key may change all. `more`: further lines of the first zone.
    #[must_use]
    pub fn start(zones: &[&str], more: &str) -> Self {
        let mut named = Named { folder: tempfile::tempdir().unwrap(), port: free_port(), child: None };
        let at = named.folder.path().display().to_string();
        let mut conf = format!(
            "options {{ directory \"{at}\"; pid-file \"{at}/pid\"; session-keyfile \"{at}/session\"; listen-on-v6 {{ none; }};
               listen-on port {} {{ 127.0.0.1; }}; recursion no; notify no; dnssec-validation no; }};
             controls {{ }};\ninclude \"{at}/key\";\n",
            named.port
        );
        named.set_secret(SECRET);
        for (index, zone) in zones.iter().enumerate() {
            let file = named.folder.path().join(format!("zone{index}"));
            let more = if index == 0 { more } else { "" };
            let text = format!("$TTL 60\n@ SOA ns.invalid. nobody.invalid. 1 60 60 60 60\n@ NS ns.invalid.\n{more}\n");
            fs::write(&file, text).unwrap();
            conf += &format!(
                "zone \"{zone}\" {{ type primary; file \"{}\"; update-policy {{ grant cloud zonesub ANY; }}; }};\n",
                file.display()
            );
        }
        fs::write(named.folder.path().join("conf"), conf).unwrap();
        named.again();
        named
    }

    /// The key file, as clients of the server have it too.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// Another key in the file; the server reads it when it starts.
    pub fn set_secret(&self, secret: &str) {
        let text = format!("key \"cloud\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n");
        fs::write(self.key_file(), text).unwrap();
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Starts, or starts once more.
    pub fn again(&mut self) {
        self.kill();
        let log = File::create(self.folder.path().join("log")).unwrap();
        let conf = self.folder.path().join("conf");
        let mut command = Command::new(NAMED);
        command.args(["-g", "-n", "1", "-c"]).arg(conf).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        until("BIND answers", || {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().unwrap());
            assert!(ended.is_none(), "BIND ended: {}", self.log());
            // By then the key is read too; "running as" is its first word.
            self.log().contains("all zones loaded").then_some(())
        });
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What `dig` finds, shortly.
    #[must_use]
    pub fn ask(&self, name: &str, kind: &str) -> BTreeSet<String> {
        let port = self.port.to_string();
        let mut dig = Command::new("dig");
        dig.args(["@127.0.0.1", "-p", &port, "+short", "+norecurse", "+time=2", "+tries=2", name, kind]);
        let output = dig.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect()
    }

    /// Waits until `dig` finds just these.
    pub fn wait(&self, name: &str, kind: &str, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
        let mut last = BTreeSet::new();
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            last = self.ask(name, kind);
            if last == wanted {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{name} {kind} is {last:?}, not {wanted:?}\n{}", self.log());
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.kill();
    }
}
