//! Scheduler, agent and both are killed at random moments during create, reboot and delete; all converge,
//! guests that ran keep their processes, and no guest is doubled or left.
//!
//! ```text
//!  round: create 2, reboot 1, delete 2 --random pause--> SIGKILL victim --random pause--> start again
//!         --> every wish is fulfilled --> processes == servers, one each; bystanders have their old pids
//! ```
//! `PILVI_STORY_ROUNDS` sets the moments for each victim (default 20; 2 with real guests),
//! `PILVI_STORY_SEED` repeats a run.
use crate::world;
use pilvi_tests::{Api, Program, Site, api::text, kernel, may_run, pause, site::Host, until};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

const PATIENCE: u64 = 120;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Scheduler,
    Agent,
    Both,
}

/// The programs stand before the site, so that a failed story ends them before it clears up.
struct Crash {
    scheduler: Option<Program>,
    agent: Option<Program>,
    site: Site,
    host: Host,
    api: Api,
    image: String,
    network: String,
    random: StdRng,
    made: u32,
}

impl Crash {
    fn start(story: &str, runtime: &str) -> Self {
        let mut site = Site::open(story).unwrap();
        site.configure("host_silence_s = 30\ncheap_passwords = true\n").unwrap();
        let scheduler = site.serve().unwrap();
        let capacity = "[capacity]\nvcpus = 64\nmemory_mib = 65536\ndisk_gib = 500";
        let host = site.host("h1", &format!("runtimes = [\"{runtime}\"]\n{capacity}")).unwrap();
        let agent = site.start_agent(&host).unwrap();
        let api = site.admin().unwrap();
        world::wait_host(&api, "h1");
        let project = api.project_id.clone();
        world::no_quota(&api, &project);
        world::flavor(&api, "one", 128);
        let image =
            if runtime == "fake" { world::fake_image(&api) } else { world::starter_image(&api, &site.starter()) };
        let (network, _) = world::network(&api, "crash", "10.44.0.0/16");
        let seed = world::number("PILVI_STORY_SEED", rand::rng().random());
        println!("{story}: PILVI_STORY_SEED={seed}");
        let random = StdRng::seed_from_u64(seed);
        Crash { scheduler: Some(scheduler), agent: Some(agent), site, host, api, image, network, random, made: 0 }
    }

    /// Calls until the scheduler answers at all: it may be dead just now.
    fn call(&self, method: &Method, path: &str, body: &Value) -> pilvi_tests::api::Answer {
        until(PATIENCE, &format!("an answer to {method} {path}"), || {
            let answer = self.api.call(method.clone(), path, body).ok()?;
            // 503 and 409 are a scheduler that starts, or a server that is busy: the same call is right a little later.
            (answer.status != 503 && answer.status != 409).then_some(answer)
        })
    }

    /// Asks for a server once; whether the wish was heard is looked up by its name afterwards.
    fn wish(&mut self) -> String {
        self.made += 1;
        let name = format!("s{}", self.made);
        let _ = self.create(&name);
        name
    }

    fn create(&self, name: &str) -> Option<u16> {
        let new = json!({"server": {"name": name, "imageRef": self.image, "flavorRef": "one",
            "networks": [{"uuid": self.network}]}});
        Some(self.api.call(Method::POST, "/compute/v2.1/servers", &new).ok()?.status)
    }

    fn id(&self, name: &str) -> Option<String> {
        let all = self.call(&Method::GET, &format!("/compute/v2.1/servers?name=^{name}$"), &Value::Null);
        let servers = all.json["servers"].as_array()?.clone();
        assert!(servers.len() < 2, "{name} is doubled: {servers:?}");
        servers.first().map(|s| text(s, "id"))
    }

    /// The server of a wish: asked for again if the crash swallowed the first asking.
    fn settled(&self, name: &str) -> String {
        if self.id(name).is_none() {
            assert_eq!(until(PATIENCE, "create is heard", || self.create(name)), 202);
        }
        let id = self.id(name).unwrap();
        world::wait_state(&self.api, &id, "ACTIVE", PATIENCE);
        id
    }

    fn crash(&mut self, victim: Victim) {
        let longest = 1_200;
        pause(Duration::from_millis(self.random.random_range(0..longest)));
        let (scheduler, agent) = match victim {
            Victim::Scheduler => (true, false),
            Victim::Agent => (false, true),
            Victim::Both => (true, true),
        };
        if scheduler {
            self.scheduler.take().unwrap().kill().unwrap();
        }
        if agent {
            self.agent.take().unwrap().kill().unwrap();
        }
        pause(Duration::from_millis(self.random.random_range(0..500)));
        if scheduler {
            self.scheduler = Some(self.site.serve().unwrap());
        }
        if agent {
            self.agent = Some(self.site.start_agent(&self.host).unwrap());
        }
    }

    /// Exactly one process for each of `ids`, and none beside them.
    fn only(&self, ids: &[String]) -> BTreeMap<String, u32> {
        let agent = self.host.agent();
        let mut ids = ids.to_vec();
        ids.sort();
        let seen = until(PATIENCE, "one process for each server, and no other", || {
            let found = kernel::guests(&agent);
            let single = found.values().all(|pids| pids.len() == 1);
            (single && found.keys().eq(ids.iter())).then_some(found)
        });
        seen.into_iter().map(|(id, pids)| (id, pids[0])).collect()
    }

    fn rounds(&mut self, victim: Victim, rounds: u64) {
        let mut living: Vec<String> =
            (0..3).map(|_| self.wish()).collect::<Vec<_>>().iter().map(|n| self.settled(n)).collect();
        for round in 0..rounds {
            let pids = self.only(&living);
            let (reboot, delete, stay) = (living[0].clone(), living[1].clone(), living[2..].to_vec());
            let kind = if self.random.random_bool(0.5) { "HARD" } else { "SOFT" };
            let names = [self.wish(), self.wish()];
            let action = json!({"reboot": {"type": kind}});
            let rebooted = self.api.call(Method::POST, &format!("/compute/v2.1/servers/{reboot}/action"), &action);
            let deleted = self.api.delete(&format!("/compute/v2.1/servers/{delete}"));
            self.crash(victim);
            assert!(rebooted.is_ok_and(|a| a.status == 202), "the reboot was asked for before the crash");
            assert!(deleted.is_ok(), "the delete was asked for before the crash");
            let fresh: Vec<String> = names.iter().map(|n| self.settled(n)).collect();
            world::wait_gone(&self.api, &delete, PATIENCE);
            world::wait_state(&self.api, &reboot, "ACTIVE", PATIENCE);
            living = [vec![reboot], stay.clone(), fresh].concat();
            let now = self.only(&living);
            if kind == "HARD" {
                assert_ne!(now[&living[0]], pids[&living[0]], "{victim:?} round {round}: the reboot was lost");
            }
            for id in &stay {
                assert_eq!(now[id], pids[id], "{victim:?} round {round}: bystander {id} has another process");
            }
            if living.len() > 4 {
                let extra = living.remove(1);
                self.call(&Method::DELETE, &format!("/compute/v2.1/servers/{extra}"), &Value::Null);
                world::wait_gone(&self.api, &extra, PATIENCE);
            }
            println!("  {victim:?} round {}: {} servers as wished", round + 1, living.len());
        }
        for id in &living {
            self.call(&Method::DELETE, &format!("/compute/v2.1/servers/{id}"), &Value::Null);
            world::wait_gone(&self.api, id, PATIENCE);
        }
        self.only(&[]);
    }

    fn finish(self) {
        let Crash { site, host, scheduler, agent, api, .. } = self;
        until(30, "no tap is left", || kernel::taps(&host.prefix()).is_empty().then_some(()));
        assert_eq!(world::claims(&api), 0, "claims are left");
        let ports = api.get("/network/v2.0/ports?device_owner=compute:nova").unwrap();
        assert_eq!(ports["ports"].as_array().unwrap().len(), 0, "{ports}");
        let instances = kernel::files(&host.agent().join("instances"));
        assert!(instances.is_empty(), "{instances:?}");
        drop((scheduler, agent));
        site.finish().unwrap();
    }
}

#[test]
fn crashes_at_any_moment_converge() {
    if !may_run("crash") {
        return;
    }
    let rounds = world::number("PILVI_STORY_ROUNDS", 20);
    let mut crash = Crash::start("crash", "fake");
    for victim in [Victim::Scheduler, Victim::Agent, Victim::Both] {
        crash.rounds(victim, rounds);
    }
    crash.finish();
}

#[test]
fn crashes_with_real_guests_converge() {
    if !may_run("crash with real guests") {
        return;
    }
    let rounds = world::number("PILVI_STORY_ROUNDS", 20).min(2);
    let mut crash = Crash::start("crashq", "qemu");
    for victim in [Victim::Scheduler, Victim::Agent, Victim::Both] {
        crash.rounds(victim, rounds);
    }
    crash.finish();
}
