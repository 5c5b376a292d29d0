//! Many agents without kernels in one process: what `tests/bench/scale` puts in front of a scheduler.
//!
//! `swarm URL TOKENS FOLDER`: joins with each token of the file, opens a session for each over TLS of its own, and
//! keeps what it is told as an agent does: ports of the wanted set are reported as wired, neighbours are kept by room and
//! must add up. Commands on stdin, answers as lines of JSON:
//!
//! ```text
//! status      {"open", "wanted", "news", "whole", "stale", "members"}
//! port ID     {"hosts": that were told of it, "last_us": when the last of them was}
//! forget      what was told of ports so far is forgotten
//! load ...    requests at a rate, from a token and bodies in the folder ([`load`])
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::expect_used)] // a tool of the benchmarks
mod load;
mod room;

use pilvi_agent::{config::Config, join, link::Addresses, tls};
use pilvi_agent_api::{
    MAX_MESSAGE,
    v1::{
        AgentMessage, Heartbeat, Hello, Inventory, Neighbours, Observed, ObservedPort, Runtime, Stale, Wanted,
        agent_client::AgentClient, scheduler_message::Body,
    },
};
use prost::Message;
use room::Room;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    io::BufRead,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// Far less often than a real agent, as the scheduler of the benchmark is patient.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Hosts that join at once.
const JOINS: usize = 32;

#[derive(Default)]
struct Seen {
    open: AtomicI64,
    wanted: AtomicI64,
    news: AtomicI64,
    whole: AtomicI64,
    stale: AtomicI64,
    members: AtomicI64,
    /// Port -> hosts that were told of it, when the last was.
    ports: Mutex<HashMap<String, (u64, u128)>>,
}

fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()
}

/// Hosts are many machines, and the client another: here they share one with the scheduler. The hosts yield to both.
const NICER: i32 = 10;

fn main() {
    let threads = || tokio::runtime::Builder::new_multi_thread();
    let client = threads().worker_threads(1).enable_all().build().unwrap();
    let nice = rustix::process::getpriority_process(None).unwrap() + NICER;
    let yielding = move || {
        let _ = rustix::process::setpriority_process(None, nice);
    };
    threads().enable_all().on_thread_start(yielding).build().unwrap().block_on(hosts(client.handle().clone()));
}

async fn hosts(client: tokio::runtime::Handle) {
    let mut words = std::env::args().skip(1);
    let (url, tokens, folder) = (words.next().unwrap(), words.next().unwrap(), PathBuf::from(words.next().unwrap()));
    let seen = Arc::new(Seen::default());
    let joins = Arc::new(Semaphore::new(JOINS));
    let about = folder.clone();
    for (n, token) in std::fs::read_to_string(tokens).unwrap().lines().enumerate() {
        let state_dir = folder.join(n.to_string());
        std::fs::create_dir_all(state_dir.join("tls")).unwrap();
        std::fs::write(state_dir.join("token"), token).unwrap();
        let config = Config {
            name: format!("h{n}"),
            join_token_file: Some(state_dir.join("token")),
            scheduler_url: url.clone(),
            state_dir,
            ..Config::default()
        };
        tokio::spawn(host(n, config, joins.clone(), seen.clone()));
    }
    let commands = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines() {
            let line = line.unwrap_or_default();
            match line.trim().strip_prefix("load ") {
                Some(words) => {
                    let words: Vec<&str> = words.split(' ').collect();
                    println!("{}", client.block_on(load::run(&words, &about)));
                }
                None => answer(line.trim(), &seen),
            }
        }
    });
    let _ = commands.await;
}

fn answer(command: &str, seen: &Seen) {
    let answer = match command.split_once(' ') {
        Some(("port", id)) => {
            let (hosts, last) = seen.ports.lock().unwrap().get(id).copied().unwrap_or_default();
            json!({"hosts": hosts, "last_us": u64::try_from(last).unwrap_or_default()})
        }
        _ if command == "forget" => {
            seen.ports.lock().unwrap().clear();
            json!({})
        }
        _ => json!({
            "open": seen.open.load(Relaxed), "wanted": seen.wanted.load(Relaxed), "news": seen.news.load(Relaxed),
            "whole": seen.whole.load(Relaxed), "stale": seen.stale.load(Relaxed), "members": seen.members.load(Relaxed),
        }),
    };
    println!("{answer}");
}

async fn host(n: usize, config: Config, joins: Arc<Semaphore>, seen: Arc<Seen>) {
    let permit = joins.acquire().await;
    let member = join::join(&config).await.expect("joining");
    drop(permit);
    let channel = tls::channel(Addresses::open(&config).unwrap(), member.tls).unwrap();
    let mut rooms = BTreeMap::new();
    loop {
        let (out, messages) = mpsc::channel::<AgentMessage>(64);
        let hello = Hello {
            node_id: member.node_id.clone(),
            name: config.name.clone(),
            agent_version: "swarm".into(),
            boot_id: "1".into(),
            inventory: Some(inventory(n)),
            ledger_generation: 0,
            neighbours: rooms.iter().map(|(id, room): (&String, &Room)| (id.clone(), room.version())).collect(),
        };
        let _ = out.send(hello.into()).await;
        let mut client = AgentClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        if let Ok(answer) = client.session(ReceiverStream::new(messages)).await {
            seen.open.fetch_add(1, Relaxed);
            session(answer.into_inner(), &out, &mut rooms, &seen).await;
            seen.open.fetch_sub(1, Relaxed);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn session(
    mut incoming: tonic::Streaming<pilvi_agent_api::v1::SchedulerMessage>,
    out: &mpsc::Sender<AgentMessage>,
    rooms: &mut BTreeMap<String, Room>,
    seen: &Seen,
) {
    let (mut beat, mut generation) = (tokio::time::interval(HEARTBEAT), 0);
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            _ = beat.tick() => {
                let _ = out.send(Heartbeat { generation }.into()).await;
                continue;
            }
        };
        let Ok(Some(message)) = message else { return };
        match message.body {
            Some(Body::Wanted(wanted)) => {
                generation = wanted.generation;
                seen.wanted.fetch_add(1, Relaxed);
                let _ = out.send(wired(wanted, rooms).into()).await;
            }
            Some(Body::Neighbours(news)) => {
                let news = Neighbours::decode(news).unwrap();
                let network_id = news.network_id.clone();
                if !told(news, rooms, seen) {
                    let _ = out.send(Stale { network_id }.into()).await;
                }
            }
            _ => {}
        }
    }
}

fn wired(wanted: Wanted, rooms: &mut BTreeMap<String, Room>) -> Observed {
    let network = wanted.network.unwrap_or_default();
    let named = network.networks.iter().filter(|n| n.neighbours).map(|n| n.id.clone());
    let mut kept: BTreeMap<String, Room> = named.map(|id| (id, Room::default())).collect();
    for (id, room) in std::mem::take(rooms) {
        kept.entry(id).and_modify(|of| *of = room);
    }
    *rooms = kept;
    let ports = network.ports.into_iter().map(|p| ObservedPort { id: p.id, wired: true, device: "none".into() });
    Observed { generation: wanted.generation, ports: ports.collect(), ..Observed::default() }
}

fn told(news: Neighbours, rooms: &mut BTreeMap<String, Room>, seen: &Seen) -> bool {
    let Some(room) = rooms.get_mut(&news.network_id) else { return true };
    if news.whole { &seen.whole } else { &seen.news }.fetch_add(1, Relaxed);
    {
        let (mut ports, now) = (seen.ports.lock().unwrap(), now_us());
        for id in news.changed.iter().filter(|_| !news.whole).map(|r| &r.port_id).chain(&news.gone) {
            let told = ports.entry(id.clone()).or_default();
            *told = (told.0 + 1, now);
        }
    }
    let before = room.len();
    let fits = room.apply(&news);
    seen.members.fetch_add(room.len() as i64 - before as i64, Relaxed);
    if !fits {
        seen.stale.fetch_add(1, Relaxed);
    }
    fits
}

fn inventory(n: usize) -> Inventory {
    Inventory {
        vcpus: 64,
        memory_mib: 262_144,
        disk_gib: 4000,
        cpu_model: "none".into(),
        cpu_arch: "x86_64".into(),
        runtimes: vec![Runtime { name: "fake".into(), usable: true, reason: "nothing is run".into() }],
        vtep: format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255),
        hypervisor_version: "1".into(),
        host_ip: "127.0.0.1".into(),
        ..Inventory::default()
    }
}
