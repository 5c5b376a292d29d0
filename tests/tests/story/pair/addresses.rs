//! Sixty-four clients want ports in one /24, at two schedulers of one PostgreSQL, one of which dies meanwhile.
//!
//! ```text
//!  fill:   64 clients create until each is refused ── a scheduler is killed amid it ── all 253 addresses are given, each once
//!  churn:  64 clients give one back and ask for another ───────────────────────────── still each once
//!  empty:  all are deleted at once, one client fills the subnet again ─────────────── none has leaked
//! ```
use super::{Pair, number};
use crate::world;
use pilvi_tests::{Api, api::text, may_run, pause};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::Duration,
};

const CLIENTS: usize = 64;
/// Of a /24: less the network's own, the broadcast address and the gateway.
const ROOM: usize = 253;
const CHURNS: usize = 3;

/// What a request to create a port came to.
enum Made {
    Port {
        id: String,
        address: String,
    },
    Exhausted,
    /// The connection was lost: it may have been made or not.
    Unknown,
}

fn address(port: &Value) -> String {
    text(&port["fixed_ips"][0], "ip_address")
}

fn create(api: &Api, network: &str) -> Made {
    let Ok(answer) = api.call(Method::POST, "/network/v2.0/ports", &json!({"port": {"network_id": network}})) else {
        return Made::Unknown;
    };
    match answer.status {
        201 => {
            let port = &answer.json["port"];
            Made::Port { id: text(port, "id"), address: address(port) }
        }
        409 => {
            assert_eq!(answer.json["NeutronError"]["type"], "IpAddressGenerationFailure", "{}", answer.text);
            Made::Exhausted
        }
        // What the balancer says when neither takes the connection.
        502 | 503 => Made::Unknown,
        other => panic!("{other}: {}", answer.text),
    }
}

/// Ports by id with their addresses, as the cloud has them; no address may be there twice.
fn standing(api: &Api, network: &str) -> HashMap<String, String> {
    let list = api.get(&format!("/network/v2.0/ports?network_id={network}&fields=id&fields=fixed_ips")).unwrap();
    let ports = list["ports"].as_array().unwrap();
    let all: HashMap<_, _> = ports.iter().map(|p| (text(p, "id"), address(p))).collect();
    assert_eq!(all.values().collect::<HashSet<_>>().len(), ports.len(), "an address was given twice");
    all
}

/// Runs `client` sixty-four times at once.
fn at_once<T: Send>(client: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let client = &client;
        let threads: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn sixty_four_clients_share_a_subnet_without_a_double_or_a_leak() {
    if !may_run("pair") {
        return;
    }
    let Some(mut pair) = Pair::start("pairaddr") else { return };
    let admin = pair.admin(pair.balancer.port);
    world::no_quota(&admin, &admin.project_id);
    let (network, _) = world::network(&admin, "crowded", "10.88.0.0/24");
    let seed = number("PILVI_STORY_SEED", rand::rng().random());
    println!("pairaddr: PILVI_STORY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let acknowledged = Mutex::new(HashMap::new());
    let (victim, moment) = (random.random_range(0..2), random.random_range(200..1_500));
    let lost: usize = std::thread::scope(|scope| {
        let filling = scope.spawn(|| {
            at_once(|_| {
                let mut lost = 0;
                // Bounded, though each is refused long before.
                for _ in 0..ROOM {
                    match create(&admin, &network) {
                        Made::Port { id, address } => {
                            assert!(acknowledged.lock().unwrap().insert(id, address).is_none());
                        }
                        Made::Exhausted => break,
                        Made::Unknown => {
                            lost += 1;
                            pause(Duration::from_millis(50));
                        }
                    }
                }
                lost
            })
        });
        pause(Duration::from_millis(moment));
        pair.kill(victim);
        filling.join().unwrap().into_iter().sum()
    });
    let all = standing(&admin, &network);
    assert_eq!(all.len(), ROOM, "all addresses are given before anybody is refused");
    for (id, address) in acknowledged.lock().unwrap().iter() {
        assert_eq!(all.get(id), Some(address), "what was acknowledged stands");
    }
    println!("pairaddr: {ROOM} addresses for {CLIENTS} clients, {lost} requests lost with scheduler {victim}");

    pair.restart(victim);
    let mine = Mutex::new(all.into_keys().collect::<Vec<_>>());
    let made = at_once(|_| {
        let mut made = 0;
        for _ in 0..CHURNS {
            let Some(id) = mine.lock().unwrap().pop() else { break };
            admin.delete(&format!("/network/v2.0/ports/{id}")).unwrap();
            // Its own address is free again, so nobody who gave one back first goes without.
            match create(&admin, &network) {
                Made::Port { id, .. } => {
                    mine.lock().unwrap().insert(0, id);
                    made += 1;
                }
                Made::Exhausted => panic!("refused with an address free"),
                Made::Unknown => panic!("nobody was killed"),
            }
        }
        made
    });
    assert_eq!(made.into_iter().sum::<usize>(), CLIENTS * CHURNS);
    assert_eq!(standing(&admin, &network).len(), ROOM);

    let rest = Mutex::new(standing(&admin, &network).into_keys().collect::<Vec<_>>());
    at_once(|_| {
        while let Some(id) = { rest.lock().unwrap().pop() } {
            admin.delete(&format!("/network/v2.0/ports/{id}")).unwrap();
        }
    });
    let used = admin.get(&format!("/network/v2.0/network-ip-availabilities/{network}")).unwrap();
    assert_eq!(used["network_ip_availability"]["used_ips"], 0, "{used}");
    let again = (0..=ROOM).filter(|_| matches!(create(&admin, &network), Made::Port { .. })).count();
    assert_eq!(again, ROOM, "an address has leaked");
    println!("pairaddr: {} given back and asked for again, none twice, none lost", CLIENTS * CHURNS);
    pair.finish();
}
