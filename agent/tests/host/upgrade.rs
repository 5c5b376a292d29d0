//! Running guests of the own VMM move into another build of it, whoever is killed meanwhile.
//!
//! The other build is a copy of the program: it does the same and is another file. The guest counts in its memory, and says
//! when it finds there what it has not written.
use crate::contract::{Case, KVM, Subject, kvm, raw};
use crate::guest;
use crate::life::{Agent, ONE, instance};
use crate::scheduler::Scheduler;
use nix::sys::signal::Signal;
use pilvi_agent::process::{self, Identity};
use pilvi_agent::runtime::kvm::Kvm;
use pilvi_agent::runtime::{DirectBoot, Kind, Machine, Run, Runtime, Status};
use pilvi_agent::{Config, Upgrade};
use pilvi_agent_api::v1::*;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const OWN: &str = env!("CARGO_BIN_EXE_pilvi-agent");

/// Another build of the program.
fn other() -> &'static Path {
    static OTHER: OnceLock<PathBuf> = OnceLock::new();
    OTHER.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("another-build");
        std::fs::copy(OWN, &path).unwrap();
        // Where the linker has given the program a build id, it is what tells builds apart.
        let id = pilvi_vmm::program::build_of(&path).unwrap();
        if !id.contains('-') {
            let (mut bytes, id) = (std::fs::read(&path).unwrap(), hex::decode(id).unwrap());
            let at = bytes.windows(id.len()).position(|part| part == id).unwrap();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        path
    })
}

fn of(program: &Path, shared: bool) -> Box<dyn Runtime> {
    let vmm_command = vec![program.to_str().unwrap().into(), "vmm".into()];
    let config = Config { vmm_command, vmm_shared_memory: Some(shared), ..Config::default() };
    let user = nix::unistd::geteuid().is_root().then_some("nobody");
    Box::new(Kvm::new(&config, user, &pilvi_vmm::probe::probe()))
}

fn dirty(dir: &Path) -> Machine {
    let path = dir.join("root");
    if !path.exists() {
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    }
    let boot = DirectBoot { kernel: guest::freestanding().into(), ramdisk: None, cmdline: "disk dirty".into() };
    Machine { vcpus: 1, memory_mib: 64, disks: vec![raw("root", path)], boot: Some(boot), ..Machine::default() }
}

const SHARED: Subject = Subject { make: || of(Path::new(OWN), true), machine: |dir, _| dirty(dir), ..KVM };
const PRIVATE: Subject = Subject { make: || of(Path::new(OWN), false), machine: |dir, _| dirty(dir), ..KVM };
/// By its memory as it is, and by a copy.
const BOTH: [(&Subject, bool); 2] = [(&SHARED, true), (&PRIVATE, false)];

fn rounds(said: &str) -> usize {
    said.matches("round ").count()
}

/// It counts on, has lost nothing, and never began anew.
async fn goes_on(case: &Case) {
    let before = rounds(&case.console().await);
    for _ in 0..600 {
        let said = case.console().await;
        if rounds(&said) > before + 2 {
            whole(&said);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not go on: {}", case.console().await);
}

fn whole(said: &str) {
    assert!(!said.contains("LOST") && said.matches("PILVI-GUEST up").count() == 1, "{said}");
    let numbers: Vec<u64> =
        said.split("round ").skip(1).filter_map(|rest| rest.split(['\r', '\n']).next()?.trim().parse().ok()).collect();
    // The last may be half said.
    let sure = &numbers[..numbers.len().saturating_sub(1)];
    assert!(sure.iter().copied().eq(1..=sure.len() as u64), "the console has a gap: {said}");
}

fn nothing_odd(case: &Case) {
    let names = std::fs::read_dir(&case.guest.dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.contains("next") || name == "upgrading" || name == "incoming"), "{names:?}");
}

async fn started(subject: &'static Subject) -> Case {
    let case = Case::new(subject);
    case.start().await;
    case.until_said("round 2").await;
    case
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_moves_into_the_build_that_is_installed_and_back() {
    if !kvm() {
        return;
    }
    for (subject, shared) in BOTH {
        let mut case = started(subject).await;
        let first = case.status().await;
        let program = case.runtime.program(&case.guest).await.unwrap().unwrap();
        assert!(program.newer.is_none() && program.name.starts_with("pilvi-vmm "), "{program:?}");
        let mut pids = vec![first.pid];
        for program in [other(), Path::new(OWN)] {
            case.runtime = of(program, shared);
            let before = case.runtime.program(&case.guest).await.unwrap().unwrap();
            let newer = before.newer.unwrap();
            assert_ne!(before.name, newer);
            case.runtime.upgrade(&case.guest, dirty(&case.guest.dir)).await.unwrap();
            let now = case.status().await;
            assert!(now.run == Run::Running && !pids.contains(&now.pid), "{now:?} {pids:?}");
            pids.push(now.pid);
            assert_eq!(case.processes(), 1);
            nothing_odd(&case);
            let program = case.runtime.program(&case.guest).await.unwrap().unwrap();
            assert!(program.newer.is_none() && program.name == newer, "{program:?}");
            goes_on(&case).await;
        }
        // It is a guest like any other: found by the next agent, saved, restored, sent on.
        case.restart_agent();
        case.runtime.pause(&case.guest).await.unwrap();
        let refused = case.runtime.upgrade(&case.guest, dirty(&case.guest.dir)).await.unwrap_err().to_string();
        assert!(refused.contains("runs"), "{refused}");
        assert_eq!(case.status().await.run, Run::Paused);
        case.runtime.suspend(&case.guest).await.unwrap();
        let machine = Machine { restore: true, ..dirty(&case.guest.dir) };
        case.runtime.start(&case.guest, machine).await.unwrap();
        goes_on(&case).await;
        case.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_go_stays_as_it_was() {
    if !kvm() {
        return;
    }
    for (subject, shared) in BOTH {
        let mut case = started(subject).await;
        let before = case.status().await;
        // A program that is none, another machine, and a disk that is not there.
        case.runtime = of(Path::new("/bin/true"), shared);
        case.runtime.upgrade(&case.guest, dirty(&case.guest.dir)).await.unwrap_err();
        case.runtime = of(other(), shared);
        let dir = &case.guest.dir;
        let mut lost = dirty(dir);
        lost.disks[0].path = "/nonexistent/disk".into();
        for machine in [Machine { memory_mib: 128, ..dirty(dir) }, Machine { disks: Vec::new(), ..dirty(dir) }, lost] {
            case.runtime.upgrade(&case.guest, machine).await.unwrap_err();
            assert_eq!(case.status().await, before);
            assert_eq!(case.processes(), 1);
            nothing_odd(&case);
            goes_on(&case).await;
        }
        case.end().await;
    }
}

/// The process that the guest shall move into, once there is one.
async fn next(case: &Case, former: &Identity) -> Option<Identity> {
    for _ in 0..2000 {
        let next = process::find(&case.guest.dir).into_iter().find(|process| process != former);
        if next.is_some() {
            return next;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    None
}

/// Kills one of the two after so long, and says what it left. `None`: the upgrade was over by then.
async fn disturbed(case: &Case, old: bool, after: Duration) -> Option<Status> {
    let former = process::recall(&case.guest.dir).unwrap();
    let disturb = async {
        let next = next(case, &former).await?;
        tokio::time::sleep(after).await;
        let victim = if old { &former } else { &next };
        let recorded = process::recall(&case.guest.dir)?;
        let was_there = victim.alive();
        victim.signal(Signal::SIGKILL).unwrap();
        (was_there && recorded == former).then_some(())
    };
    let (upgraded, struck) = tokio::join!(case.runtime.upgrade(&case.guest, dirty(&case.guest.dir)), disturb);
    let status = case.status().await;
    nothing_odd(case);
    match status.run {
        Run::Running => assert_eq!(case.processes(), 1, "{upgraded:?}"),
        Run::Absent => assert_eq!(case.processes(), 0, "{upgraded:?}"),
        other => panic!("{other:?} {upgraded:?}"),
    }
    if !old && status.pid == u32::try_from(former.pid).unwrap() {
        assert!(upgraded.is_err(), "it was killed and nobody says so");
    }
    struck.map(|()| status)
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_monitor_dies_one_runs_it_or_none() {
    if !kvm() {
        return;
    }
    for (subject, shared) in BOTH {
        // The next one, before anything could go over: the former goes on.
        let mut case = started(subject).await;
        let before = case.status().await;
        case.runtime = of(other(), shared);
        assert_eq!(disturbed(&case, false, Duration::ZERO).await, Some(before));
        goes_on(&case).await;
        // The former one: there is nothing that could go on, and nothing is left.
        let gone = disturbed(&case, true, Duration::ZERO).await.unwrap();
        assert_eq!(gone.run, Run::Absent);
        case.end().await;
        let (mut ran, mut lost) = (0, 0);
        for round in 0..12 {
            let mut case = started(subject).await;
            case.runtime = of(other(), shared);
            let after = Duration::from_millis(rand::random_range(0..400));
            match disturbed(&case, round % 2 == 0, after).await.unwrap_or(case.status().await).run {
                Run::Running => {
                    goes_on(&case).await;
                    ran += 1;
                }
                _ => lost += 1,
            }
            whole(&case.console().await);
            case.end().await;
        }
        eprintln!("shared {shared}: {ran} went on, {lost} were killed with their process");
    }
}

/// The agent dies at any moment, and the next one is of the other build: it moves the guest, as the setting says.
#[tokio::test(flavor = "multi_thread")]
async fn twelve_agents_of_two_builds_are_killed_and_the_guest_goes_on() {
    if !kvm() {
        return;
    }
    for shared in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let scheduler = Scheduler::start().await;
        let (url, token) = (scheduler.config(dir.path()).scheduler_url, scheduler.token());
        let run = |program: &Path| start(program, &url, dir.path(), &token, shared);
        let folder = dir.path().join("agent/instances").join(ONE);
        let kernel = scheduler.image("kernel", std::fs::read(guest::freestanding()).unwrap());
        let mut agent = run(Path::new(OWN));
        scheduler.want(|wanted| {
            let disk =
                Disk { id: "root".into(), image: Some(scheduler.image("img", vec![0; 1 << 20])), ..Disk::default() };
            let (kernel, cmdline, runtime) = (Some(kernel), "disk dirty".to_owned(), "kvm".to_owned());
            wanted.instances = vec![Instance { disks: vec![disk], kernel, cmdline, runtime, ..instance(ONE) }];
        });
        let first = scheduler.until_settled(ONE, Power::Running).await;
        let said = || std::fs::read_to_string(folder.join("console.log")).unwrap_or_default();
        let mut pids = std::collections::BTreeSet::from([first.pid]);
        let mut begun = 0;
        for round in 0..12_u64 {
            let program = if round % 2 == 0 { other() } else { Path::new(OWN) };
            agent.kill().unwrap();
            agent.wait().unwrap();
            agent = run(program);
            // Until it has begun, where it is to begin, and then for a while: longer from round to round.
            let at_home = |program: &Path| scheduler.instance(ONE).is_some_and(|seen| is_of(&seen, program));
            for _ in 0..4000 {
                if folder.join("upgrading").exists() || at_home(program) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            begun += usize::from(folder.join("upgrading").exists());
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..200 * (round + 1)))).await;
            whole(&said());
            pids.extend(process::recall(&folder).map(|process| process.pid.unsigned_abs()));
        }
        let settled = |seen: &ObservedInstance| is_of(seen, Path::new(OWN)) && seen.newer_program.is_empty();
        let seen = scheduler.until_instance(ONE, "in the build that is installed", settled).await;
        assert_eq!((seen.power(), seen.crashed), (Power::Running, false));
        assert_eq!(process::find(&folder).len(), 1);
        let before = rounds(&said());
        while rounds(&said()) < before + 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        whole(&said());
        eprintln!(
            "shared {shared}: {begun} upgrades were under way at a kill, the guest was seen in {} processes",
            pids.len()
        );
        assert!(begun > 0 && pids.len() > 1, "no upgrade began, or none came to its end");
        scheduler.want(|wanted| wanted.instances.clear());
        scheduler.until_gone(ONE).await;
        assert!(process::find(&folder).is_empty() && !folder.exists());
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
}

/// Whether the guest runs in this build.
fn is_of(seen: &ObservedInstance, program: &Path) -> bool {
    seen.program.contains(&pilvi_vmm::program::build_of(program).unwrap())
}

fn start(program: &Path, url: &str, dir: &Path, token: &str, shared: bool) -> Child {
    let config = dir.join("config.toml");
    let log = File::options().append(true).create(true).open(dir.join("log")).unwrap();
    let text = format!(
        "runtimes = ['kvm']\nnetwork = 'none'\nheartbeat_ms = 200\nvmm_upgrade = 'on'\nvmm_shared_memory = {shared}\n"
    );
    std::fs::write(&config, text).unwrap();
    Command::new(program)
        .args(["--config".as_ref(), config.as_os_str()])
        .args(["--scheduler", url, "--name", "n1", "--state-dir"])
        .arg(dir.join("agent"))
        .env("PILVI_AGENT_JOIN_TOKEN", token)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// By itself nothing moves; who runs in what is told; one that is asked for is done once.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_asks_for_it() {
    if !kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let config = |program: &Path, upgrade| {
        let vmm_command = vec![program.to_str().unwrap().into(), "vmm".into()];
        Config { vmm_command, vmm_upgrade: upgrade, runtimes: vec![Kind::Kvm], ..scheduler.config(dir.path()) }
    };
    let mut agent = Agent::start(config(Path::new(OWN), Upgrade::Asked));
    let kernel = scheduler.image("kernel", std::fs::read(guest::freestanding()).unwrap());
    scheduler.want(|wanted| {
        let (kernel, cmdline, runtime) = (Some(kernel), "dirty".to_owned(), "kvm".to_owned());
        wanted.instances = vec![Instance { kernel, cmdline, runtime, config_drive: true, ..instance(ONE) }];
    });
    let first = scheduler.until_settled(ONE, Power::Running).await;
    assert!(first.program.starts_with("pilvi-vmm ") && first.newer_program.is_empty(), "{first:?}");
    for upgrade in [Upgrade::Off, Upgrade::Asked] {
        agent.stop().await;
        agent = Agent::start(config(other(), upgrade));
        scheduler.hello().await;
        let told = |seen: &ObservedInstance| !seen.newer_program.is_empty();
        let seen = scheduler.until_instance(ONE, "told that there is another build", told).await;
        assert_eq!((seen.pid, &seen.program), (first.pid, &first.program));
        scheduler.change(ONE, |instance| instance.upgrades += 1);
        let asked = scheduler.wanted().instances[0].upgrades;
        let seen = scheduler.until_instance(ONE, "asked", |seen| seen.upgrades == asked && seen.settled).await;
        assert_eq!(seen.pid == first.pid, upgrade == Upgrade::Off, "{seen:?}");
    }
    let done = |seen: &ObservedInstance| seen.newer_program.is_empty() && !seen.program.is_empty();
    let seen = scheduler.until_instance(ONE, "in the other build", done).await;
    assert_eq!((seen.power(), seen.upgrade_error.as_str()), (Power::Running, ""));
    assert_eq!(process::find(&agent.folder(ONE)).len(), 1);
    // What cannot be done is told, and done again only when it is asked for again.
    agent.stop().await;
    let broken = dir.path().join("broken");
    std::fs::write(&broken, "#!/bin/sh\n[ \"$2\" = --version ] && echo 'pilvi-vmm 99 (broken)'\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    agent = Agent::start(config(&broken, Upgrade::Asked));
    scheduler.hello().await;
    scheduler.change(ONE, |instance| instance.upgrades += 1);
    let told = |seen: &ObservedInstance| seen.upgrade_error.contains("does not wait");
    let told = scheduler.until_instance(ONE, "told why it stays", told).await;
    assert_eq!((told.pid, told.error.as_str(), told.power()), (seen.pid, "", Power::Running));
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until_gone(ONE).await;
    agent.end().await;
}
