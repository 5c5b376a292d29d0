//! The real program, killed at random moments while instances come, reboot and go.
use crate::scheduler::Scheduler;
use pilvi_agent::process;
use pilvi_agent_api::v1::*;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn start(scheduler_url: &str, state_dir: &Path, token: &str) -> Child {
    let config = state_dir.join("config.toml");
    let log = File::options().append(true).create(true).open(state_dir.join("log")).unwrap();
    let text = "runtimes = ['fake']\nnetwork = 'none'\nheartbeat_ms = 200\n";
    std::fs::write(&config, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_pilvi-agent"))
        .args(["--config".as_ref(), config.as_os_str()])
        .args(["--scheduler", scheduler_url, "--name", "n1", "--state-dir"])
        .arg(state_dir.join("agent"))
        .env("PILVI_AGENT_JOIN_TOKEN", token)
        .env("RUST_LOG", "pilvi_agent=debug")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn id(n: usize) -> String {
    format!("3f1c2b1e-0000-4000-8000-{n:012}")
}

fn instance(n: usize, image: &ImageRef) -> Instance {
    Instance {
        id: id(n),
        generation: 1,
        power: Power::Running.into(),
        disks: vec![Disk { id: "root".into(), image: Some(image.clone()), ..Disk::default() }],
        properties: [("fake:slow_ms".to_owned(), "30".to_owned())].into(),
        ..Instance::default()
    }
}

/// Shows what the agents said when the test fails.
struct LogOnPanic(std::path::PathBuf);

impl Drop for LogOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.0).unwrap_or_default());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let (url, token) = (scheduler.config(dir.path()).scheduler_url, scheduler.token());
    let run = || start(&url, dir.path(), &token);
    let folder = |n: usize| dir.path().join("agent/instances").join(id(n));
    let image = scheduler.image("img", vec![5; 3 << 20]);
    let mut agent = run();
    // One that nothing happens to: it must live through all of this.
    scheduler.want(|wanted| wanted.instances = vec![instance(0, &image)]);
    let steady = scheduler.until_settled(&id(0), Power::Running).await;
    for round in 0..20_usize {
        let n = 1 + round % 4;
        let there = round % 3 == 2;
        scheduler.want(|wanted| {
            let generation = wanted.generation;
            match wanted.instances.iter().position(|i| i.id == id(n)) {
                Some(at) if there => drop(wanted.instances.remove(at)),
                Some(at) => {
                    wanted.instances[at].generation = generation;
                    wanted.instances[at].hard_reboots += 1;
                }
                None => wanted.instances.push(Instance { generation, ..instance(n, &image) }),
            }
        });
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..150))).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        for n in 0..5 {
            assert!(process::find(&folder(n)).len() <= 1, "round {round}: {n} is doubled");
        }
        agent = run();
    }
    let wanted: Vec<String> = (0..5).map(id).collect();
    let log = LogOnPanic(dir.path().join("log"));
    for id in wanted {
        let known = scheduler.wanted().instances.iter().any(|i| i.id == id);
        if known {
            scheduler.until_settled(&id, Power::Running).await;
        } else {
            scheduler.until_gone(&id).await;
        }
    }
    let again = scheduler.until_settled(&id(0), Power::Running).await;
    assert_eq!(again.pid, steady.pid, "a guest that ran was ended");
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until("empty", |seen| seen.instances.is_empty()).await;
    scheduler.until_gone(&id(0)).await;
    for n in 0..5 {
        assert!(process::find(&folder(n)).is_empty() && !folder(n).exists(), "{n} is left");
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    drop(log);
}
