//! Two schedulers on one real PostgreSQL, one address in front, hosts with simulated guests.
//!
//! ```text
//!  writers, prober --> balancer --> scheduler a, scheduler b --> PostgreSQL
//!                                        ^--- agents, each with one of them
//! ```
//! - What one answers, the other knows: a client that alternates reads its own writes.
//! - Either is killed at random, again and again: everything acknowledged is there in the end, nothing deleted is back,
//!   nothing is doubled, and another request is served within five seconds.
//! - Sixty-four clients share a subnet: no address twice, none lost, and a clear refusal when there is none (`addresses`).
//! - What does not fit is refused with a reason: a second scheduler on a SQLite file, keys of another cloud, images in
//!   two directories.
//!
//! Any other judge may be run in the same way: `PILVI_PAIR_COMMAND` is a shell's command that finds address, authority and
//! password of the cloud in `PILVI_PAIR_URL`, `PILVI_PAIR_CA` and `OS_PASSWORD` (`--ignored a_command`). `PILVI_PAIR_FIRST` and
//! `PILVI_PAIR_SECOND` are the addresses of one of the two alone; the file `PILVI_PAIR_SETTINGS` is put to the settings of both.
//!
//! `PILVI_STORY_KILLS` sets how often (default 20), `PILVI_STORY_SEED` repeats the order.
mod addresses;
mod ledger;

use crate::world;
use ledger::{Kept, Writer};
use pilvi_store::testing::PostgresServer;
use pilvi_tests::{
    Api, Balancer, Program, Site,
    api::text,
    kernel, may_run, pause,
    site::{Host, free_port},
    until,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const SIMULATED: &str = "runtimes = [\"fake\"]\nnetwork = \"none\"\nheartbeat_ms = 500\n\
    [capacity]\nvcpus = 256\nmemory_mib = 262144\ndisk_gib = 4000";
const WRITERS: usize = 6;
/// From a kill to the next served request.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}

/// Programs stand before the sites, so that a failed story ends them before it clears up.
struct Pair {
    programs: [Option<Program>; 2],
    agents: Vec<Program>,
    hosts: Vec<Host>,
    balancer: Balancer,
    sites: [Site; 2],
    _images: tempfile::TempDir,
    _postgres: PostgresServer,
}

fn settings(url: &str, images: &Path, front: u16) -> String {
    let more = std::env::var_os("PILVI_PAIR_SETTINGS").map(|path| fs::read_to_string(path).unwrap());
    let own = format!(
        "store = \"{url}\"\nimages_dir = \"{}\"\npublic_url = \"https://127.0.0.1:{front}\"\nhost_silence_s = 8\n\
         cheap_passwords = true\n",
        images.display()
    );
    own + more.as_deref().unwrap_or_default()
}

impl Pair {
    /// `None` when there is no PostgreSQL here.
    fn start(story: &str) -> Option<Self> {
        let Some(postgres) = PostgresServer::start().unwrap() else {
            assert!(std::env::var_os("PILVI_NO_SKIP").is_none(), "PostgreSQL is not installed");
            println!("{story}: skipped: PostgreSQL is not installed");
            return None;
        };
        let url = postgres.database().unwrap();
        let images = tempfile::Builder::new().prefix("pilvi-pair-images-").tempdir().unwrap();
        let sites = [Site::open(story).unwrap(), Site::open(story).unwrap()];
        let front = free_port();
        for site in &sites {
            site.configure(&settings(&url, images.path(), front)).unwrap();
        }
        let first = sites[0].serve().unwrap();
        fs::copy(sites[0].state.join("master-key"), sites[1].state.join("master-key")).unwrap();
        let second = sites[1].serve().unwrap();
        let balancer = Balancer::start(front, &[sites[0].port, sites[1].port]).unwrap();
        let programs = [Some(first), Some(second)];
        let (agents, hosts) = (Vec::new(), Vec::new());
        Some(Pair { programs, agents, hosts, balancer, sites, _images: images, _postgres: postgres })
    }

    fn ca(&self) -> PathBuf {
        self.sites[0].state.join("pki/ca.pem")
    }

    /// As the administrator, through the front or at one of the two.
    fn admin(&self, port: u16) -> Api {
        let password = fs::read_to_string(self.sites[0].state.join("admin-password")).unwrap();
        let api = Api::open(&format!("https://127.0.0.1:{port}"), &self.ca()).unwrap();
        until(30, "an administrator", || api.login("admin", password.trim(), "admin").ok())
    }

    fn hosts(&mut self, admin: &Api) {
        for (name, at) in [("p1", 0), ("p2", 1)] {
            let host = self.sites[at].host(name, SIMULATED).unwrap();
            self.agents.push(self.sites[at].start_agent(&host).unwrap());
            world::wait_host(admin, name);
            self.hosts.push(host);
        }
    }

    fn kill(&mut self, at: usize) {
        self.programs[at].take().unwrap().kill().unwrap();
    }

    fn restart(&mut self, at: usize) {
        self.programs[at] = Some(self.sites[at].serve().unwrap());
    }

    fn finish(self) {
        let Pair { sites: [a, b], programs, agents, .. } = self;
        drop((programs, agents));
        b.finish().unwrap();
        a.finish().unwrap();
    }
}

#[test]
fn what_one_answers_the_other_knows() {
    if !may_run("pair") {
        return;
    }
    let Some(mut pair) = Pair::start("pair") else { return };
    let admin = pair.admin(pair.balancer.port);
    pair.hosts(&admin);
    let (a, b) = (pair.admin(pair.sites[0].port), pair.admin(pair.sites[1].port));
    for round in 0..30 {
        let (here, there) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        alternate(here, there, round);
    }
    // A question to a host is answered by whichever scheduler is asked.
    world::no_quota(&a, &a.project_id);
    world::flavor(&a, "one", 128);
    let image = world::fake_image(&a);
    let (network, _) = world::network(&a, "pair", "10.66.0.0/16");
    let new =
        json!({"server": {"name": "asked", "imageRef": image, "flavorRef": "one", "networks": [{"uuid": network}]}});
    let id = text(&b.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
    world::wait_state(&a, &id, "ACTIVE", 60);
    for api in [&a, &b] {
        let path = format!("/compute/v2.1/servers/{id}/action");
        let answer = api.call(Method::POST, &path, &json!({"os-getConsoleOutput": {}})).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    b.delete(&format!("/compute/v2.1/servers/{id}")).unwrap();
    world::wait_gone(&a, &id, 60);
    assert_eq!(world::claims(&a), 0);
    let agents = |api: &Api| {
        api.get("/network/v2.0/agents?agent_type=Pilvi%20agent").unwrap()["agents"].as_array().unwrap().len()
    };
    assert_eq!((agents(&a), agents(&b)), (2, 2), "hosts are known wherever their sessions are");
    println!("pair: a client that alternates reads its own writes, 30 rounds");
    pair.finish();
}

/// Every step at one scheduler is seen by the next one at the other.
fn alternate(here: &Api, there: &Api, round: u32) {
    let name = format!("alternating-{round}");
    let project =
        here.post("/identity/v3/projects", &json!({"project": {"name": name, "domain_id": "default"}})).unwrap();
    let project = text(&project["project"], "id");
    let user = json!({"user": {"name": name, "domain_id": "default", "password": "alternating-user"}});
    let user = text(&there.post("/identity/v3/users", &user).unwrap()["user"], "id");
    let role = text(&here.get("/identity/v3/roles?name=member").unwrap()["roles"][0], "id");
    let grant = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
    assert!(there.login(&name, "alternating-user", &name).is_err(), "no role yet");
    here.put(&grant, &Value::Null).unwrap();
    let theirs = there.login(&name, "alternating-user", &name).expect("the role that was just granted");
    let ours = here.with_token(&theirs.token);
    assert_eq!(ours.call(Method::GET, "/network/v2.0/networks", &Value::Null).unwrap().status, 200);
    // The token is revoked there, and dead here at once.
    assert_eq!(theirs.revoke().unwrap().status, 204);
    assert_eq!(ours.call(Method::GET, "/network/v2.0/networks", &Value::Null).unwrap().status, 401, "round {round}");
    let again = here.login(&name, "alternating-user", &name).unwrap();
    there.delete(&grant).unwrap();
    assert_eq!(again.call(Method::GET, "/network/v2.0/networks", &Value::Null).unwrap().status, 401, "round {round}");
    there.delete(&format!("/identity/v3/users/{user}")).unwrap();
    here.delete(&format!("/identity/v3/projects/{project}")).unwrap();
    let gone = there.call(Method::GET, &format!("/identity/v3/projects/{project}"), &Value::Null).unwrap();
    assert_eq!(gone.status, 404);
}

/// Milliseconds from `since` until a request that was sent after it was answered well.
fn served_after(prober: &Api, since: Instant) -> Duration {
    loop {
        let answer = prober.call(Method::GET, "/identity/v3/projects?name=admin", &Value::Null);
        if answer.is_ok_and(|a| a.status == 200) {
            return since.elapsed();
        }
        assert!(since.elapsed() < Duration::from_secs(60), "nobody serves");
        pause(Duration::from_millis(10));
    }
}

/// The same until a new server runs: placed by whoever has that job now, started by an agent that found its way.
fn running_after(api: &Api, ground: &ledger::Ground, name: &str, since: Instant) -> Duration {
    let id = until(60, "a server is accepted", || ground.create_server(api, name).ok().flatten());
    world::wait_state(api, &id, "ACTIVE", 90);
    let took = since.elapsed();
    until(30, "it is deleted", || api.delete(&format!("/compute/v2.1/servers/{id}")).ok());
    took
}

#[test]
fn nothing_acknowledged_is_lost_when_either_is_killed() {
    if !may_run("pair") {
        return;
    }
    let Some(mut pair) = Pair::start("pairkill") else { return };
    let admin = pair.admin(pair.balancer.port);
    pair.hosts(&admin);
    world::no_quota(&admin, &admin.project_id);
    world::flavor(&admin, "one", 128);
    let (network, _) = world::network(&admin, "ground", "10.77.0.0/16");
    let ground = Arc::new(ledger::Ground { image: world::fake_image(&admin), network });
    let seed = number("PILVI_STORY_SEED", rand::rng().random());
    println!("pairkill: PILVI_STORY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let stop = Arc::new(AtomicBool::new(false));
    let kept: Arc<Mutex<Vec<Kept>>> = Arc::default();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let writer = Writer::new(number, pair.admin(pair.balancer.port), ground.clone(), random.random());
            let (stop, kept) = (stop.clone(), kept.clone());
            std::thread::spawn(move || {
                let all = writer.run(&stop);
                kept.lock().unwrap().extend(all);
            })
        })
        .collect();
    let (mut served, mut running) = (Vec::new(), Vec::new());
    for round in 0..number("PILVI_STORY_KILLS", 20) {
        pause(Duration::from_millis(random.random_range(300..2_500)));
        let victim = random.random_range(0..2);
        pair.kill(victim);
        let since = Instant::now();
        let gap = served_after(&admin, since);
        // Every fourth time the dead one stays away until the other does all its work.
        if round % 4 == 0 {
            let took = running_after(&admin, &ground, &format!("probe-{round}"), since);
            println!("  a new server runs {} ms after the kill", took.as_millis());
            running.push(took);
        }
        println!("  kill {}: scheduler {}, served again after {} ms", round + 1, ["a", "b"][victim], gap.as_millis());
        assert!(gap < SERVED_WITHIN, "{gap:?} from the kill to the next served request");
        served.push(gap);
        pause(Duration::from_millis(random.random_range(0..1_500)));
        pair.restart(victim);
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.join().unwrap();
    }
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    ledger::check(&admin, &kept);
    let most = |all: &[Duration]| all.iter().max().map_or(0, Duration::as_millis);
    println!(
        "pairkill: {} objects of {} writers are as acknowledged after {} kills; the next request was served after at \
         most {} ms, a new server ran after at most {} ms ({} connections were turned to the other scheduler)",
        kept.len(),
        WRITERS,
        served.len(),
        most(&served),
        most(&running),
        pair.balancer.turned()
    );
    clear(&mut pair, &admin);
    pair.finish();
}

/// Deletes all servers, and looks whether anything is left of them.
fn clear(pair: &mut Pair, admin: &Api) {
    let servers = |query: &str| {
        admin.get(&format!("/compute/v2.1/servers?{query}")).unwrap()["servers"].as_array().unwrap().clone()
    };
    for server in servers("limit=1000") {
        admin.delete(&format!("/compute/v2.1/servers/{}", text(&server, "id"))).unwrap();
    }
    until(120, "all servers are gone", || servers("limit=1000").is_empty().then_some(()));
    until(60, "no guest is left", || {
        pair.hosts.iter().map(|h| kernel::guests(&h.agent()).len()).sum::<usize>().eq(&0).then_some(())
    });
    assert_eq!(world::claims(admin), 0, "claims are left");
}

#[test]
#[ignore = "runs PILVI_PAIR_COMMAND"]
fn a_command_runs_while_either_is_killed() {
    let command = std::env::var("PILVI_PAIR_COMMAND").expect("PILVI_PAIR_COMMAND");
    let Some(mut pair) = Pair::start("pairrun") else { return };
    let admin = pair.admin(pair.balancer.port);
    pair.hosts(&admin);
    let network = json!({"network": {"name": "public", "router:external": true, "provider:network_type": "flat",
        "provider:physical_network": "external"}});
    if let Ok(network) = admin.post("/network/v2.0/networks", &network) {
        let subnet = json!({"subnet": {"network_id": text(&network["network"], "id"), "ip_version": 4,
            "cidr": "203.0.113.0/24", "enable_dhcp": false}});
        admin.post("/network/v2.0/subnets", &subnet).unwrap();
    }
    let mut random = StdRng::seed_from_u64(number("PILVI_STORY_SEED", rand::rng().random()));
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", &command])
        .env("PILVI_PAIR_URL", format!("https://127.0.0.1:{}", pair.balancer.port))
        .env("PILVI_PAIR_FIRST", format!("https://127.0.0.1:{}", pair.sites[0].port))
        .env("PILVI_PAIR_SECOND", format!("https://127.0.0.1:{}", pair.sites[1].port))
        .env("PILVI_PAIR_CA", pair.ca())
        .env("OS_PASSWORD", fs::read_to_string(pair.sites[0].state.join("admin-password")).unwrap().trim())
        .spawn()
        .unwrap();
    let (mut kills, mut most) = (0, Duration::ZERO);
    let pause_ms = number("PILVI_PAIR_PAUSE_MS", 20_000);
    loop {
        let next = Instant::now() + Duration::from_millis(random.random_range(pause_ms / 2..pause_ms * 3 / 2));
        while Instant::now() < next && child.try_wait().unwrap().is_none() {
            pause(Duration::from_millis(100));
        }
        if let Some(status) = child.try_wait().unwrap() {
            println!(
                "pairrun: the command ended ({status}); {kills} kills, served again after at most {} ms",
                most.as_millis()
            );
            break;
        }
        let victim = random.random_range(0..2);
        pair.kill(victim);
        most = most.max(served_after(&admin, Instant::now()));
        kills += 1;
        pause(Duration::from_millis(random.random_range(0..3_000)));
        pair.restart(victim);
    }
    pair.finish();
}

#[test]
fn schedulers_that_do_not_fit_are_refused() {
    if !may_run("pair") {
        return;
    }
    let refused = |site: &Site, reason: &str| {
        let mut program = site.start_serve().unwrap();
        let status = program.wait_exit(Duration::from_secs(60)).unwrap();
        let said = program.said();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(reason), "{said}");
    };
    let (first, second) = (Site::open("sole").unwrap(), Site::open("sole").unwrap());
    let running = first.serve().unwrap();
    let file = first.state.join("store.db");
    second.configure(&format!("store = \"sqlite:{}\"\ncheap_passwords = true\n", file.display())).unwrap();
    refused(&second, "a SQLite file serves one scheduler");
    drop(running);
    second.finish().unwrap();
    first.finish().unwrap();

    let Some(postgres) = PostgresServer::start().unwrap() else { return };
    let url = postgres.database().unwrap();
    let (first, second) = (Site::open("fit").unwrap(), Site::open("fit").unwrap());
    for site in [&first, &second] {
        site.configure(&format!("store = \"{url}\"\ncheap_passwords = true\n")).unwrap();
    }
    let running = first.serve().unwrap();
    refused(&second, "sealed with a master key that is not in");
    fs::write(second.state.join("master-key"), "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=\n").unwrap();
    refused(&second, "another cloud's");
    fs::copy(first.state.join("master-key"), second.state.join("master-key")).unwrap();
    refused(&second, "keeps image data in another directory");
    drop(running);
    second.finish().unwrap();
    first.finish().unwrap();
}
