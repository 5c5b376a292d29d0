//! Live migration between two hosts: whatever is killed at whatever moment, a server runs on one of them, is known to be
//! there, and nothing of it is left on the other. And a guest of our own VMM that writes to its disk all the while.
//!
//! `PILVI_STORY_ROUNDS` sets the moments (default 12), `PILVI_STORY_SEED` repeats a run.
mod cold;

use crate::world;
use pilvi_tests::{Api, Program, Site, api::text, kernel, may_run, pause, site::Host, until};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: u64 = 120;
const SIMULATED: &str = "runtimes = [\"fake\"]\nnetwork = \"none\"\nheartbeat_ms = 300\n\
    [capacity]\nvcpus = 8\nmemory_mib = 8192\ndisk_gib = 100";

/// Two hosts and their scheduler. The programs stand first, so that a failed story ends them before it clears up.
struct Pair {
    scheduler: Option<Program>,
    agents: [Option<Program>; 2],
    hosts: [Host; 2],
    site: Site,
    api: Api,
}

impl Pair {
    fn open(story: &str, settings: &str) -> Self {
        let mut site = Site::open(story).unwrap();
        site.configure("host_silence_s = 30\ncheap_passwords = true\n").unwrap();
        let scheduler = site.serve().unwrap();
        let hosts = ["m1", "m2"].map(|name| site.host(name, settings).unwrap());
        let agents = [0, 1].map(|n| Some(site.start_agent(&hosts[n]).unwrap()));
        let api = site.admin().unwrap();
        hosts.iter().for_each(|host| world::wait_host(&api, &host.name));
        Pair { scheduler: Some(scheduler), agents, hosts, site, api }
    }

    /// Calls until the scheduler answers at all: it may be dead just now.
    fn get(&self, path: &str) -> Value {
        until(PATIENCE, &format!("an answer to {path}"), || {
            let answer = self.api.call(Method::GET, path, &Value::Null).ok()?;
            (answer.status == 200).then_some(answer.json)
        })
    }

    fn settled(&self, id: &str) -> Value {
        until(PATIENCE, "the server is ACTIVE again", || {
            let server = self.get(&format!("/compute/v2.1/servers/{id}"))["server"].clone();
            assert_ne!(server["status"], "ERROR", "{server}");
            (server["status"] == "ACTIVE" && server["OS-EXT-STS:task_state"].is_null()).then_some(server)
        })
    }

    /// On which of the two hosts its one process is.
    fn place(&self, id: &str) -> (usize, u32) {
        until(PATIENCE, "one process on one of the hosts", || {
            let found = [0, 1].map(|n| kernel::guests(&self.hosts[n].agent()).get(id).cloned().unwrap_or_default());
            match (found[0].as_slice(), found[1].as_slice()) {
                ([pid], []) => Some((0, *pid)),
                ([], [pid]) => Some((1, *pid)),
                _ => None,
            }
        })
    }

    fn migrate(&self, id: &str) -> Option<u16> {
        let body = json!({"os-migrateLive": {"host": null, "block_migration": "auto"}});
        let path = format!("/compute/v2.1/servers/{id}/action");
        Some(self.api.call(Method::POST, &path, &body).ok()?.status)
    }

    fn newest_migration(&self, id: &str) -> Value {
        let all = self.get(&format!("/compute/v2.1/os-migrations?instance_uuid={id}&limit=1"));
        all["migrations"][0].clone()
    }

    fn finish(self, id: &str) {
        self.api.delete(&format!("/compute/v2.1/servers/{id}")).unwrap();
        world::wait_gone(&self.api, id, PATIENCE);
        until(30, "nothing is left on either host", || {
            let left = |host: &Host| {
                kernel::guests(&host.agent()).len() + kernel::files(&host.agent().join("instances")).len()
            };
            (self.hosts.iter().map(left).sum::<usize>() == 0 && world::claims(&self.api) == 0).then_some(())
        });
        let Pair { scheduler, agents, site, .. } = self;
        drop((scheduler, agents));
        site.finish().unwrap();
    }

    /// Kills somebody in the middle, and starts it again.
    fn disturb(&mut self, victim: u64, from: usize, random: &mut StdRng) {
        pause(Duration::from_millis(random.random_range(0..900)));
        let agents: &[usize] = match victim {
            2 => &[from],
            3 => &[1 - from],
            4 => &[0, 1],
            _ => &[],
        };
        if victim == 1 {
            self.scheduler.take().unwrap().kill().unwrap();
        }
        agents.iter().for_each(|n| self.agents[*n].take().unwrap().kill().unwrap());
        pause(Duration::from_millis(random.random_range(0..300)));
        if victim == 1 {
            self.scheduler = Some(self.site.serve().unwrap());
        }
        for n in agents {
            self.agents[*n] = Some(self.site.start_agent(&self.hosts[*n]).unwrap());
        }
    }
}

#[test]
fn a_server_moves_and_whoever_is_killed_meanwhile_loses_nothing() {
    if !may_run("moves") {
        return;
    }
    let mut pair = Pair::open("moves", SIMULATED);
    world::flavor(&pair.api, "one", 128);
    let properties = json!({"hw_pilvi_runtime": "fake", "fake:move_ms": "400"});
    let image = world::image(&pair.api, "fake", "raw", vec![0; 1 << 20], &properties);
    let (network, _) = world::network(&pair.api, "moves", "10.46.0.0/24");
    let new =
        json!({"server": {"name": "nomad", "imageRef": image, "flavorRef": "one", "networks": [{"uuid": network}]}});
    let id = text(&pair.api.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
    pair.settled(&id);
    let seed = world::number("PILVI_STORY_SEED", rand::rng().random());
    println!("moves: PILVI_STORY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut went, rounds) = (0, world::number("PILVI_STORY_ROUNDS", 12));
    for round in 0..rounds {
        let (from, pid) = pair.place(&id);
        until(PATIENCE, "the migration is taken", || (pair.migrate(&id)? == 202).then_some(()));
        // Nobody, the scheduler, the host here, the host there, both hosts.
        let victim = round % 5;
        pair.disturb(victim, from, &mut random);
        let server = pair.settled(&id);
        let (at, now) = pair.place(&id);
        assert_eq!(text(&server, "OS-EXT-SRV-ATTR:host"), pair.hosts[at].name, "round {round}");
        let migration = pair.newest_migration(&id);
        let moved = migration["status"] == "completed";
        assert_eq!(moved, at != from, "round {round}: {migration}");
        if !moved {
            assert!(victim != 0, "nothing stood in its way: {migration}");
            assert_eq!(migration["status"], "error", "{migration}");
            assert_eq!(now, pid, "round {round}: what stays is the same process");
        }
        let claimed = until(PATIENCE, "it is claimed once", || Some(world::claims(&pair.api)).filter(|c| *c == 130));
        assert_eq!(claimed, 130, "1 processor, 128 MiB, 1 GiB");
        went += u32::from(moved);
        println!("  round {}: victim {victim}, {}", round + 1, text(&migration, "status"));
    }
    assert!(went > 0, "not one migration came to its end");
    cancelled(&pair, &id);
    pair.finish(&id);
}

/// A migration that is given up leaves the server where it is.
fn cancelled(pair: &Pair, id: &str) {
    let (from, pid) = pair.place(id);
    assert_eq!(pair.migrate(id), Some(202));
    let number = until(PATIENCE, "the migration runs", || {
        let open = pair.get(&format!("/compute/v2.1/servers/{id}/migrations"));
        let running = open["migrations"].as_array()?.iter().find(|m| m["status"] == "running")?.clone();
        running["id"].as_u64()
    });
    let path = format!("/compute/v2.1/servers/{id}/migrations/{number}");
    let answer = pair.api.call(Method::DELETE, &path, &Value::Null).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text);
    pair.settled(id);
    let status = text(&pair.newest_migration(id), "status");
    // It may have been too late.
    match pair.place(id) {
        (at, now) if at == from => assert_eq!((status.as_str(), now), ("cancelled", pid)),
        _ => assert_eq!(status, "completed"),
    }
    println!("  cancelled: {status}");
}

#[test]
fn a_guest_of_the_vmm_moves_while_it_writes_to_its_disk() {
    if !may_run("moves with the VMM") || !crate::kvm::kvm_is_here("moves") {
        return;
    }
    let pair = Pair::open("movesk", "runtimes = [\"kvm\"]\nnetwork = \"none\"\nheartbeat_ms = 300");
    if !crate::kvm::traits(&pair.api).iter().any(|t| t == "CUSTOM_PILVI_RUNTIME_KVM") {
        println!("moves with the VMM: skipped: this host's KVM cannot run guests");
        let Pair { scheduler, agents, site, .. } = pair;
        drop((scheduler, agents));
        return site.finish().unwrap();
    }
    world::flavor(&pair.api, "kvm-64", 64);
    let kernel = world::image(&pair.api, "guest-kernel", "aki", crate::kvm::freestanding(), &json!({}));
    let with = json!({"kernel_id": kernel, "hw_pilvi_runtime": "kvm", "os_command_line": "scribble"});
    let image = world::image(&pair.api, "scribbler", "raw", vec![0; 1 << 20], &with);
    let (network, _) = world::network(&pair.api, "moves", "10.47.0.0/24");
    let new = json!({"server": {"name": "nomad", "imageRef": image, "flavorRef": "kvm-64",
        "networks": [{"uuid": network}]}});
    let id = text(&pair.api.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
    pair.settled(&id);
    // Lines from the end; -1: all that is kept.
    let console = |lines: i32| -> Vec<u64> {
        let body = json!({"os-getConsoleOutput": {"length": lines}});
        let out = pair.api.post(&format!("/compute/v2.1/servers/{id}/action"), &body).unwrap();
        let out = text(&out, "output");
        let whole = &out[..out.rfind('\n').unwrap_or(0)];
        whole.lines().filter_map(|line| line.strip_prefix("wrote ")?.trim().parse().ok()).collect()
    };
    until(PATIENCE, "it writes", || (console(300).len() > 100).then_some(()));
    let (from, _) = pair.place(&id);
    let begin = Instant::now();
    assert_eq!(pair.migrate(&id), Some(202));
    let before = console(5);
    pair.settled(&id);
    let (at, _) = pair.place(&id);
    assert_ne!(at, from, "{}", pair.newest_migration(&id));
    println!("  moved with its disk in {:.1} s, everything included", begin.elapsed().as_secs_f64());
    let after = until(PATIENCE, "it writes there", || Some(console(20)).filter(|all| all.len() > 10));
    assert!(after[0] > *before.last().unwrap_or(&0), "it goes on, and does not begin anew: {before:?} {after:?}");
    // Every write of which the guest was told is on the disk there.
    let said = console(-1);
    let disk = std::fs::read(pair.hosts[at].agent().join("instances").join(&id).join("disks").join("root")).unwrap();
    let kept = |n: u64| {
        let at = (64 + (n % 1024) as usize) * 512;
        u64::from_le_bytes(disk[at..at + 8].try_into().unwrap())
    };
    let last = *said.last().unwrap();
    for count in (1..=last).rev().take(1024) {
        assert!(kept(count) >= count, "write {count} of {last} was lost: {}", kept(count));
    }
    pair.finish(&id);
}

#[test]
fn a_guest_of_qemu_moves_and_is_alive_there() {
    if !may_run("moves with QEMU") {
        return;
    }
    let pair = Pair::open("movesq", "runtimes = [\"qemu\"]\nnetwork = \"none\"\nheartbeat_ms = 300");
    world::flavor(&pair.api, "one", 256);
    let image = world::starter_image(&pair.api, &pair.site.starter());
    let (network, _) = world::network(&pair.api, "moves", "10.48.0.0/24");
    let new =
        json!({"server": {"name": "nomad", "imageRef": image, "flavorRef": "one", "networks": [{"uuid": network}]}});
    let id = text(&pair.api.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
    pair.settled(&id);
    let act = |body: &Value| pair.api.post(&format!("/compute/v2.1/servers/{id}/action"), body).unwrap();
    let console = || text(&act(&json!({"os-getConsoleOutput": {}})), "output");
    until(PATIENCE, "it has booted", || console().contains("login:").then_some(()));
    let (from, _) = pair.place(&id);
    let begin = Instant::now();
    assert_eq!(pair.migrate(&id), Some(202));
    pair.settled(&id);
    let (at, pid) = pair.place(&id);
    assert_ne!(at, from, "{}", pair.newest_migration(&id));
    println!("  moved with its disk in {:.1} s, everything included", begin.elapsed().as_secs_f64());
    assert!(!console().contains("login:"), "it did not boot there");
    // Only a system that runs hears the power button.
    act(&json!({"os-stop": null}));
    world::wait_state(&pair.api, &id, "SHUTOFF", PATIENCE);
    assert!(console().contains("Power down"), "{}", console());
    assert!(!kernel::guests(&pair.hosts[at].agent()).values().flatten().any(|p| *p == pid));
    pair.finish(&id);
}
