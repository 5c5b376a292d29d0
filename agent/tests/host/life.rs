//! Agents from join to the last removal, driven by wanted sets over a real session.
use crate::guest;
use crate::scheduler::Scheduler;
use pilvi_agent::runtime::Kind;
use pilvi_agent::{Config, Error, Secret, process};
use pilvi_agent_api::v1::*;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const ONE: &str = "3f1c2b1e-0000-4000-8000-000000000001";

/// An agent in this process that can be stopped and started again.
pub struct Agent {
    config: Config,
    running: Option<(CancellationToken, tokio::task::JoinHandle<Result<(), Error>>)>,
}

impl Agent {
    pub fn start(config: Config) -> Self {
        let mut agent = Self { config, running: None };
        agent.again();
        agent
    }
    pub fn again(&mut self) {
        let stop = CancellationToken::new();
        let run = pilvi_agent::run(self.config.clone(), stop.clone());
        self.running = Some((stop, tokio::spawn(run)));
    }
    pub async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.cancel();
            task.await.unwrap().unwrap();
        }
    }
    pub fn folder(&self, id: &str) -> PathBuf {
        self.config.state_dir.join("instances").join(id)
    }
    /// Stops the agent and removes all that it made.
    pub async fn end(mut self) {
        self.stop().await;
        let folders: Vec<PathBuf> = std::fs::read_dir(self.config.state_dir.join("instances"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        pilvi_agent::remove_all(&self.config).await.unwrap();
        assert!(!self.config.state_dir.exists());
        for folder in folders {
            assert_eq!(process::find(&folder), []);
        }
    }
}

pub fn instance(id: &str) -> Instance {
    Instance {
        id: id.into(),
        name: "web".into(),
        generation: 1,
        power: Power::Running.into(),
        vcpus: 1,
        memory_mib: 32,
        metadata: Some(Metadata { uuid: id.into(), ..Metadata::default() }),
        ..Instance::default()
    }
}

async fn set_up() -> (TempDir, Scheduler, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let agent = Agent::start(scheduler.config(dir.path()));
    (dir, scheduler, agent)
}

fn count_files(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_join_to_removal() {
    let (_dir, scheduler, agent) = set_up().await;
    let hello = scheduler.hello().await;
    assert_eq!((hello.name.as_str(), hello.ledger_generation), ("n1", 0));
    let inventory = hello.inventory.unwrap();
    assert!(inventory.vcpus > 0 && inventory.runtimes[0].name == "fake");
    let image = scheduler.image("img", vec![7; 300_000]);
    scheduler.want(|wanted| {
        let disk = Disk { id: "root".into(), size_gib: 1, image: Some(image), ..Disk::default() };
        let nic = Nic { port_id: "p1".into(), ..Nic::default() };
        let port = Port { id: "p1".into(), instance_id: ONE.into(), ..Port::default() };
        wanted.network = Some(HostNetwork { ports: vec![port], ..HostNetwork::default() });
        wanted.instances = vec![Instance { disks: vec![disk], nics: vec![nic], config_drive: true, ..instance(ONE) }];
    });
    let seen = scheduler.until_settled(ONE, Power::Running).await;
    assert!(seen.pid > 0 && seen.runtime == "fake" && !seen.crashed);
    let root = std::fs::read(agent.folder(ONE).join("disks/root"));
    assert!(root.unwrap().starts_with(&[7; 300_000]));
    let drive = std::fs::read(agent.folder(ONE).join("config-drive")).unwrap();
    assert_eq!(&drive[0x8028..0x8030], b"config-2");

    let answer = scheduler.ask(Question::console_log(1, ONE, 1)).await;
    assert_eq!((answer.error.as_str(), &answer.data[..]), ("", &b"fake guest started\n"[..]));
    let answer = scheduler.ask(Question::diagnostics(2, ONE)).await;
    let document: serde_json::Value = serde_json::from_slice(&answer.data).unwrap();
    assert_eq!(document["pid"], seen.pid);
    assert!(document["memory_rss_kib"].as_u64().unwrap() > 0);
    for question in [Question::console_log(3, "../..", 0), Question::diagnostics(4, "none")] {
        assert!(scheduler.ask(question).await.error.contains("no instance"));
    }

    scheduler.want(|wanted| *wanted = Wanted { generation: wanted.generation, ..Wanted::default() });
    scheduler.until_gone(ONE).await;
    assert_eq!(count_files(&agent.config.state_dir.join("instances")), 0);
    assert_eq!(process::find(&agent.folder(ONE)), []);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_good_once_and_name_their_cloud() {
    let dir = tempfile::tempdir().unwrap();
    let (scheduler, other) = (Scheduler::start().await, Scheduler::start().await);
    let run = |name: &str, token: Option<String>| {
        let config = Config { join_token: token.map(Secret::new), ..scheduler.config(&dir.path().join(name)) };
        pilvi_agent::run(config, CancellationToken::new())
    };
    let refused = run("a", None).await.unwrap_err().to_string();
    assert!(refused.contains("join token"), "{refused}");
    let refused = run("b", Some("pilvi1.nonsense".into())).await.unwrap_err().to_string();
    assert!(refused.contains("not a join token") && !refused.contains("nonsense"), "{refused}");
    // A token of another cloud: this scheduler is not the one that made it.
    let refused = run("c", Some(other.token())).await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    let token = scheduler.token();
    let mut agent = Agent::start(Config {
        join_token: Some(Secret::new(token.clone())),
        ..scheduler.config(&dir.path().join("d"))
    });
    scheduler.hello().await;
    let refused = run("e", Some(token)).await.unwrap_err().to_string();
    assert!(refused.contains("was used"), "{refused}");
    // The one that joined needs no token any more.
    agent.stop().await;
    agent.config.join_token = None;
    scheduler.state.fetches.lock().unwrap().clear();
    agent.again();
    scheduler.hello().await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_agent_and_scheduler() {
    let (_dir, mut scheduler, mut agent) = set_up().await;
    scheduler.want(|wanted| wanted.instances = vec![instance(ONE)]);
    let first = scheduler.until_settled(ONE, Power::Running).await;
    agent.stop().await;
    scheduler.away().await;
    assert!(process::recall(&agent.folder(ONE)).is_some());
    agent.again();
    tokio::time::sleep(Duration::from_millis(500)).await;
    scheduler.back().await;
    let hello = scheduler.hello().await;
    assert_eq!(hello.ledger_generation, 1);
    let again = scheduler.until_settled(ONE, Power::Running).await;
    assert_eq!((again.pid, again.generation), (first.pid, first.generation));
    assert_eq!(process::find(&agent.folder(ONE)).len(), 1);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_power_state_and_verb() {
    let (_dir, scheduler, agent) = set_up().await;
    scheduler.want(|wanted| wanted.instances = vec![instance(ONE)]);
    let mut pid = scheduler.until_settled(ONE, Power::Running).await.pid;
    for (power, same) in [
        (Power::Paused, true),
        (Power::Running, true),
        (Power::Suspended, false),
        (Power::Running, false),
        (Power::Stopped, false),
        (Power::Running, false),
    ] {
        scheduler.change(ONE, |instance| instance.power = power.into());
        let seen = scheduler.until_settled(ONE, power).await;
        if power == Power::Running {
            assert_eq!(seen.pid == pid, same, "{power:?}");
            pid = seen.pid;
        }
    }
    for verb in 0..3 {
        scheduler.change(ONE, |instance| match verb {
            0 => instance.hard_reboots += 1,
            1 => instance.soft_reboots += 1,
            _ => instance.rebuilds += 1,
        });
        let seen = scheduler.until_settled(ONE, Power::Running).await;
        assert_ne!(seen.pid, pid);
        let done = (seen.hard_reboots, seen.soft_reboots, seen.rebuilds);
        assert_eq!(done, (1, u64::from(verb > 0), u64::from(verb > 1)));
        pid = seen.pid;
    }
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_makes_the_root_anew() {
    let (_dir, scheduler, agent) = set_up().await;
    let (old, new) = (scheduler.image("old", vec![1; 5000]), scheduler.image("new", vec![2; 5000]));
    let root = |image| vec![Disk { id: "root".into(), image: Some(image), ..Disk::default() }];
    scheduler.want(|wanted| {
        wanted.instances = vec![Instance { disks: root(old), ..instance(ONE) }];
    });
    scheduler.until_settled(ONE, Power::Running).await;
    let path = agent.folder(ONE).join("disks/root");
    std::fs::write(&path, b"written by the guest").unwrap();
    scheduler.change(ONE, |instance| {
        instance.rebuilds += 1;
        instance.disks = root(new);
    });
    scheduler.until_settled(ONE, Power::Running).await;
    assert_eq!(std::fs::read(&path).unwrap(), vec![2; 5000]);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_by_itself_is_told_and_left() {
    let (_dir, scheduler, agent) = set_up().await;
    for (property, crashed) in [("fake:power_off_ms", false), ("fake:crash_ms", true)] {
        scheduler.want(|wanted| {
            let properties = [(property.to_owned(), "300".to_owned())].into();
            wanted.instances = vec![Instance { properties, ..instance(ONE) }];
        });
        scheduler.until_settled(ONE, Power::Running).await;
        let seen = scheduler.until_settled(ONE, Power::Stopped).await;
        assert_eq!((seen.crashed, seen.pid), (crashed, 0), "{property}");
        // A newer generation that wants it running starts it again.
        scheduler.change(ONE, |instance| instance.properties.clear());
        let seen = scheduler.until_settled(ONE, Power::Running).await;
        assert!(!seen.crashed);
        scheduler.want(|wanted| wanted.instances.clear());
        scheduler.until_gone(ONE).await;
    }
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_and_mended() {
    let (_dir, scheduler, agent) = set_up().await;
    scheduler.want(|wanted| {
        let properties = [("fake:fail_start".to_owned(), "out of luck".to_owned())].into();
        wanted.instances = vec![Instance { properties, ..instance(ONE) }];
    });
    let seen = scheduler.until_instance(ONE, "failed", |seen| !seen.error.is_empty()).await;
    assert!(seen.error.contains("out of luck") && seen.settled, "{seen:?}");
    scheduler.change(ONE, |instance| instance.runtime = "qemu".into());
    scheduler.until_instance(ONE, "refused", |s| s.error.contains("does not offer")).await;
    scheduler.change(ONE, |instance| {
        instance.runtime.clear();
        instance.properties.clear();
    });
    scheduler.until_settled(ONE, Power::Running).await;

    let two = "3f1c2b1e-0000-4000-8000-000000000002";
    let image = scheduler.image("img", vec![3; 9000]);
    scheduler.image("img", vec![4; 9000]);
    scheduler.want(|wanted| {
        let disk = Disk { id: "root".into(), image: Some(image), ..Disk::default() };
        wanted.instances.push(Instance { disks: vec![disk], ..instance(two) });
    });
    scheduler.until_instance(two, "mismatch", |s| s.error.contains("SHA-512")).await;
    scheduler.image("img", vec![3; 9000]);
    scheduler.until_settled(two, Power::Running).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_ends_no_guest() {
    let (_dir, mut scheduler, mut agent) = set_up().await;
    let two = "3f1c2b1e-0000-4000-8000-000000000002";
    scheduler.want(|wanted| {
        wanted.instances = vec![Instance { hard_reboots: 3, rebuilds: 2, ..instance(ONE) }, instance(two)];
    });
    let first = scheduler.until_settled(ONE, Power::Running).await;
    let second = scheduler.until_settled(two, Power::Running).await;
    agent.stop().await;
    scheduler.away().await;
    std::fs::write(agent.config.state_dir.join("wanted"), "garbage").unwrap();
    std::fs::write(agent.folder(ONE).join("doc"), "garbage").unwrap();
    std::fs::remove_file(agent.folder(two).join("doc")).unwrap();
    agent.again();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for id in [ONE, two] {
        assert_eq!(process::find(&agent.folder(id)).len(), 1, "ended without a word");
    }
    assert_eq!(count_files(&agent.config.state_dir.join("quarantine")), 2);
    // The scheduler now wants only one of them.
    scheduler.want(|wanted| wanted.instances.truncate(1));
    scheduler.back().await;
    scheduler.until_gone(two).await;
    let again = scheduler.until_settled(ONE, Power::Running).await;
    assert_eq!(again.pid, first.pid, "rebooted or rebuilt twice");
    assert_eq!((again.hard_reboots, again.rebuilds), (3, 2));
    assert!(process::stat(i32::try_from(second.pid).unwrap()).is_none_or(|s| s.state == 'Z'));
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_generation_from_the_scheduler_is_obeyed() {
    let (_dir, scheduler, agent) = set_up().await;
    scheduler.want(|wanted| {
        wanted.generation = 100;
        wanted.instances = vec![instance(ONE)];
    });
    scheduler.until_settled(ONE, Power::Running).await;
    scheduler.want(|wanted| *wanted = Wanted { generation: 7, ..Wanted::default() });
    scheduler.until("back", |seen| seen.generation == 7 && seen.instances.is_empty()).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_share_one_image() {
    let (_dir, scheduler, agent) = set_up().await;
    let image = scheduler.image("img", vec![9; 2 << 20]);
    let id = |n: usize| format!("3f1c2b1e-0000-4000-8000-{n:012}");
    scheduler.want(|wanted| {
        wanted.instances = (0..30)
            .map(|n| Instance {
                disks: vec![Disk { id: "root".into(), image: Some(image.clone()), ..Disk::default() }],
                ..instance(&id(n))
            })
            .collect();
    });
    scheduler
        .until("all running", |seen| {
            seen.instances.len() == 30 && seen.instances.iter().all(|i| i.reached(1) && i.pid > 0)
        })
        .await;
    assert_eq!(scheduler.state.fetches.lock().unwrap().len(), 1);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_guest_from_image_to_power_off() {
    if !guest::qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let runtimes = vec![Kind::Qemu];
    let mut agent = Agent::start(Config { runtimes, ..scheduler.config(dir.path()) });
    let mut sector = guest::boot_sector(0);
    sector.resize(1 << 20, 0);
    let image = scheduler.image("boot", sector);
    scheduler.want(|wanted| {
        let disk = Disk { id: "root".into(), image: Some(image), ..Disk::default() };
        wanted.instances = vec![Instance { disks: vec![disk], config_drive: true, ..instance(ONE) }];
    });
    let first = scheduler.until_settled(ONE, Power::Running).await;
    agent.stop().await;
    agent.again();
    scheduler.hello().await;
    let mut said = String::new();
    for id in 10..400 {
        let answer = scheduler.ask(Question::console_log(id, ONE, 0)).await;
        said = String::from_utf8_lossy(&answer.data).into_owned();
        if said.contains("upAB") || said.contains("up\r\nAB") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(said.contains("pilvi guest up"), "{said:?}");
    assert_eq!(scheduler.until_settled(ONE, Power::Running).await.pid, first.pid);
    scheduler.change(ONE, |instance| instance.power = Power::Stopped.into());
    scheduler.until_settled(ONE, Power::Stopped).await;
    let said = scheduler.ask(Question::console_log(900, ONE, 1)).await;
    assert!(said.data.starts_with(b"bye"), "it was not asked: {said:?}");
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until_gone(ONE).await;
    agent.end().await;
}
