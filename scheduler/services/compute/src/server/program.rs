//! Which programs guests run in, and the operator's wish that they move into the newer one of their host. No API of the
//! original's knows of it: `pilvi node` works on the store.
use super::ops::living_in;
use crate::{fault, tables::Server};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store};

/// What a server's guest runs in, as its host said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub server: String,
    pub name: String,
    pub host: String,
    pub runtime: String,
    /// "" where the runtime knows of none, or the guest does not run.
    pub program: String,
    /// What it would run in after a start; "" where that is the same.
    pub newer: String,
    /// Asked to move, and not done yet.
    pub asked: bool,
    /// Why the last try did not work.
    pub error: String,
}

/// Whose guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of<'a> {
    All,
    Host(&'a str),
    Server(&'a str),
}

fn program(server: &Server) -> Option<Program> {
    let seen = server.seen.clone().unwrap_or_default();
    Some(Program {
        server: server.id.clone(),
        name: server.name.clone(),
        host: server.host.clone()?,
        runtime: seen.runtime,
        asked: server.wanted.upgrades > seen.upgrades,
        program: seen.program,
        newer: seen.newer_program,
        error: seen.upgrade_error,
    })
}

/// The guests that are on hosts, by host and name.
pub async fn programs(store: &Store, of: Of<'_>) -> Result<Vec<Program>, Fault> {
    let all = Query::all().eq("alive", 1);
    let servers = match of {
        Of::All => store.list::<Server>(all).await?,
        Of::Host(host) => store.list::<Server>(all.eq("host", host)).await?,
        Of::Server(id) => store.get::<Server>(id).await?.into_iter().collect(),
    };
    let mut found: Vec<Program> = servers.iter().filter_map(|server| program(server)).collect();
    found.sort_by(|a, b| (&a.host, &a.name, &a.server).cmp(&(&b.host, &b.name, &b.server)));
    Ok(found)
}

/// Wishes that the guests move which run in another program than they would after a start. One that was asked for and
/// is not done yet is not asked for twice. Returns whose wish it is.
pub async fn upgrade(store: &Store, of: Of<'_>) -> Result<Vec<Program>, Fault> {
    let found = programs(store, of).await?;
    if let (Of::Server(id), true) = (of, found.is_empty()) {
        return Err(fault::server_not_found(id));
    }
    let mut asked = Vec::new();
    for mut one in found.into_iter().filter(|one| !one.newer.is_empty()) {
        let id = one.server.clone();
        let wish = store.write(move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let mut server = living_in(tx, &id).await?;
                let done = server.seen.as_ref().map_or(0, |seen| seen.upgrades);
                if server.wanted.upgrades <= done && !server.wanted.delete {
                    server.record.wanted.upgrades = done + 1;
                    server.record.wanted.generation += 1;
                    tx.update(&server).await?;
                }
                Ok::<_, Fault>(())
            })
        });
        match wish.await {
            Ok(()) => {
                one.asked = true;
                asked.push(one);
            }
            // Deleted meanwhile.
            Err(fault) if fault.status == 404 => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(asked)
}
