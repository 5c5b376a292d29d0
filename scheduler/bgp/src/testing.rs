//! A real router for tests: BIRD with a private configuration and control socket, on loopback.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // as in any test
#![allow(clippy::disallowed_methods)] // nobody else waits on this thread
use crate::Routes;
use std::{
    fs::{self, File},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const BIRD: &str = "/usr/sbin/bird";

/// One router; killed when it is dropped.
#[derive(Debug)]
pub struct Bird {
    folder: TempDir,
    child: Option<Child>,
}

/// Is BIRD installed? Says so where it is not, and is a failure where nothing may be skipped.
#[must_use]
pub fn bird_is_here() -> bool {
    let here = fs::exists(BIRD).unwrap_or(false);
    assert!(here || std::env::var_os("PILVI_NO_SKIP").is_none(), "{BIRD} is missing (Debian: bird2)");
    if !here {
        println!("skipped: {BIRD} is missing (Debian: bird2)");
    }
    here
}

/// A TCP port that nobody has on this address.
#[must_use]
pub fn free_port(address: &str) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
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

impl Bird {
    /// `protocols`: what stands in the configuration beside the log and the router's id.
    #[must_use]
    pub fn start(protocols: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bird = Bird { folder, child: None };
        let text = format!("router id 10.255.0.1;\nlog \"{}\" all;\nprotocol device {{}}\n{protocols}", bird.at("log"));
        fs::write(bird.at("conf"), text).unwrap();
        bird.again();
        bird
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Starts, or starts once more.
    pub fn again(&mut self) {
        self.kill();
        let out = File::create(self.at("out")).unwrap();
        let mut command = Command::new(BIRD);
        command.args(["-f", "-c", &self.at("conf"), "-s", &self.at("socket"), "-P", &self.at("pid")]);
        self.child = Some(command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap());
        until("BIRD answers", || {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().unwrap());
            assert!(ended.is_none(), "BIRD ended: {}", fs::read_to_string(self.at("out")).unwrap_or_default());
            self.ask("show status").contains("Daemon is up").then_some(())
        });
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    #[must_use]
    pub fn ask(&self, question: &str) -> String {
        let output = Command::new("/usr/sbin/birdc").args(["-s", &self.at("socket")]).arg(question).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    /// What `show route all` says: destinations and next hops of one table.
    #[must_use]
    pub fn routes(&self, table: &str) -> Routes {
        let mut routes = Routes::new();
        let mut net = None;
        for line in self.ask(&format!("show route all table {table}")).lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if !line.starts_with('\t')
                && let Ok(found) = first.parse()
            {
                net = Some(found);
            }
            if first == "BGP.next_hop:"
                && let (Some(net), Some(Ok(hop))) = (net, words.next().map(str::parse))
            {
                routes.insert(net, hop);
            }
        }
        routes
    }

    /// Waits until the table is this one.
    pub fn wait_routes(&self, table: &str, wanted: &Routes) {
        let mut last = Routes::new();
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            last = self.routes(table);
            if last == *wanted {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{table} is {last:#?}\nnot {wanted:#?}\n{}\n{}", self.ask("show protocols all"), self.log());
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        self.kill();
    }
}
