//! Requests at a steady rate, as many clients together would make them: each has its time, whether those before it were
//! answered or not, on the first connection that is free.
//!
//! HTTP/1.1 by hand: a client of a few microseconds, so that the machine measures the scheduler.
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::Instant,
};

/// What is sent: `POST path`, a body each.
struct Load {
    address: String,
    path: String,
    token: String,
    bodies: Vec<String>,
    /// From one to the next.
    apart: Duration,
}

/// One request: the id in its answer, when it was due (microseconds since 1970), and how long after that it was answered.
type Done = (Value, u64, u64);

/// `words`: address, path, requests a second, connections. `folder` has the token and the bodies, one a line.
pub async fn run(words: &[&str], folder: &Path) -> Value {
    let [address, path, rate, connections] = words else {
        return json!({"error": "load ADDRESS PATH RATE CONNECTIONS"});
    };
    let (rate, connections): (f64, usize) = (rate.parse().unwrap(), connections.parse().unwrap());
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let load = Arc::new(Load {
        address: (*address).to_owned(),
        path: (*path).to_owned(),
        token: read("token").trim().to_owned(),
        bodies: read("bodies").lines().map(str::to_owned).collect(),
        apart: Duration::from_secs_f64(1.0 / rate),
    });
    let (next, begun) = (Arc::new(AtomicUsize::new(0)), (Instant::now(), SystemTime::now()));
    let workers: Vec<_> = (0..connections).map(|_| tokio::spawn(work(load.clone(), next.clone(), begun))).collect();
    let mut done = Vec::new();
    for worker in workers {
        done.extend(worker.await.unwrap());
    }
    json!({"seconds": begun.0.elapsed().as_secs_f64(), "done": done})
}

async fn work(load: Arc<Load>, next: Arc<AtomicUsize>, begun: (Instant, SystemTime)) -> Vec<Done> {
    let mut done = Vec::new();
    let mut stream = BufReader::new(TcpStream::connect(&load.address).await.unwrap());
    stream.get_ref().set_nodelay(true).unwrap();
    loop {
        let at = next.fetch_add(1, Relaxed);
        let Some(body) = load.bodies.get(at) else { return done };
        let after = load.apart * u32::try_from(at).unwrap();
        tokio::time::sleep_until(begun.0 + after).await;
        let request = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nx-auth-token: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            load.path,
            load.address,
            load.token,
            body.len(),
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream).await;
        let due = (begun.1 + after).duration_since(UNIX_EPOCH).unwrap();
        let took = (begun.0 + after).elapsed();
        let id = answer.as_object().and_then(|made| made.values().next()).map(|made| made["id"].clone());
        done.push((id.unwrap_or(answer), due.as_micros() as u64, took.as_micros() as u64));
    }
}

/// Status line, headers, a body of known length.
async fn answer(stream: &mut BufReader<TcpStream>) -> Value {
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).await.unwrap();
    assert!(line.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{line}");
    loop {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        match line.trim().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap()
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}
