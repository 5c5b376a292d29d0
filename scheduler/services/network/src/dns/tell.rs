//! One name: what it shall have, told to the server, and written down before and after.
use super::{
    model::{NameWish, Publication, PublishedName, data, text},
    publish::Settings,
    source::records,
};
use crate::tables::find;
use pilvi_dns_update::{Change, Data, Trouble};
use pilvi_kit::Fault;
use pilvi_store::{Store, Tx};
use std::collections::BTreeSet;

/// What the server has to hear of a name.
#[derive(Debug, Clone)]
pub struct Errand {
    /// As it is written down: all that may be there, what is wanted among it.
    name: PublishedName,
    wanted: BTreeSet<String>,
    /// What may have been there before.
    before: BTreeSet<String>,
    /// Of the wish that it answers.
    asked: u64,
}

/// Whose the name is: whose it was, as long as that project wants it; else the first of those that do.
fn holder<'p>(name: &PublishedName, wanting: &'p [Publication]) -> Option<&'p str> {
    let same = wanting.iter().find(|p| p.project_id == name.project_id);
    same.or_else(|| wanting.iter().min_by_key(|p| &p.project_id)).map(|p| p.project_id.as_str())
}

/// Writes down what is about to be told; `None` when there is nothing to tell.
pub async fn begin(store: &Store, settings: &Settings, name: &str) -> Result<Option<Errand>, Fault> {
    let (settings, name) = (settings.clone(), name.to_owned());
    store
        .write(move |tx| {
            let (settings, name) = (settings.clone(), name.clone());
            Box::pin(async move { begin_in(tx, &settings, &name).await })
        })
        .await
}

async fn begin_in(tx: &mut Tx, settings: &Settings, name: &str) -> Result<Option<Errand>, Fault> {
    let Some(wish) = tx.get::<NameWish>(name).await? else { return Ok(None) };
    let stored = tx.get::<PublishedName>(name).await?;
    let fresh = || PublishedName { id: name.to_owned(), ..PublishedName::default() };
    let mut known = stored.as_ref().map_or_else(fresh, |stored| stored.record.clone());
    let mut wanted = BTreeSet::new();
    if let Some(zone) = settings.zone_of(name) {
        let wanting = records(tx.list::<Publication>(find::labelled(name)).await?);
        let holder = holder(&known, &wanting).unwrap_or_default().to_owned();
        let of_holder = wanting.into_iter().filter(|p| p.project_id == holder);
        wanted = of_holder.flat_map(|p| p.entries).filter(|e| e.name == name).map(|e| e.data).collect();
        known.project_id = holder;
        known.claimed &= known.zone == zone && known.server == settings.address();
        known.zone = zone;
        known.server = settings.address();
        known.ttl = settings.ttl;
    }
    let before = known.made.clone();
    known.made.extend(wanted.iter().cloned());
    if known.made.is_empty() {
        tx.delete::<NameWish>(name).await?;
        if stored.is_some() {
            tx.delete::<PublishedName>(name).await?;
        }
        return Ok(None);
    }
    match stored {
        None => drop(tx.insert(&known).await?),
        Some(stored) if stored.record == known => {}
        Some(mut stored) => {
            stored.record = known.clone();
            tx.update(&stored).await?;
        }
    }
    Ok(Some(Errand { name: known, wanted, before, asked: wish.asked }))
}

impl Errand {
    fn change(&self, new: bool, remove: Vec<Data>) -> Change {
        Change {
            zone: self.name.zone.clone(),
            name: self.name.id.clone(),
            new,
            remove,
            add: self.wanted.iter().map(|text| data(text)).collect(),
            ttl: self.name.ttl,
        }
    }

    fn surplus(&self) -> Vec<Data> {
        self.name.made.difference(&self.wanted).map(|text| data(text)).collect()
    }

    /// Has the server have just what is wanted, if the name is ours or free.
    pub async fn run(&self, settings: &Settings) -> Result<(), Trouble> {
        let server = &settings.server;
        if self.name.claimed {
            return server.update(&self.change(false, self.surplus())).await;
        }
        if !self.wanted.is_empty() {
            match server.update(&self.change(true, Vec::new())).await {
                Err(Trouble::Taken(_)) => {}
                other => return other,
            }
        }
        // An earlier try may have come through unheard: then there is nothing but what it has put there.
        let (zone, name) = (&self.name.zone, &self.name.id);
        let found = server.look(zone, name, name.ends_with(".arpa.")).await?;
        let ours = !found.is_empty() && found.iter().all(|there| self.name.made.contains(&text(there)));
        match (ours, self.wanted.is_empty()) {
            (true, _) => server.update(&self.change(false, self.surplus())).await,
            (false, true) => Ok(()),
            (false, false) => Err(Trouble::Taken(name.clone())),
        }
    }

    /// Writes down what came of it. What has been asked for meanwhile stays asked for.
    pub async fn end(self, store: &Store, outcome: &Result<(), Trouble>) -> Result<(), Fault> {
        let left = match outcome {
            Ok(()) => None,
            // None of it is there, so none of it must ever be taken away.
            Err(Trouble::Taken(_)) => Some(BTreeSet::new()),
            // The server says that it has done nothing.
            Err(Trouble::Zone { .. }) => Some(self.before.clone()),
            Err(_) => return Ok(()),
        };
        store
            .write(move |tx| {
                let (errand, left) = (self.clone(), left.clone());
                Box::pin(async move { errand.end_in(tx, left).await })
            })
            .await
    }

    /// `left`: what may be there, if nothing was changed.
    async fn end_in(self, tx: &mut Tx, left: Option<BTreeSet<String>>) -> Result<(), Fault> {
        let Some(mut known) = tx.get::<PublishedName>(&self.name.id).await? else { return Ok(()) };
        if let Some(left) = left {
            known.made = left;
            tx.update(&known).await?;
            return Ok(());
        }
        known.claimed = !self.wanted.is_empty();
        known.made = self.wanted;
        if known.made.is_empty() {
            tx.delete::<PublishedName>(&self.name.id).await?;
        } else {
            tx.update(&known).await?;
        }
        if tx.get::<NameWish>(&self.name.id).await?.is_some_and(|wish| wish.asked == self.asked) {
            tx.delete::<NameWish>(&self.name.id).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_with_the_project_that_has_it() {
        let of = |project: &str| Publication {
            id: format!("port/{project}"),
            project_id: project.into(),
            entries: BTreeSet::new(),
        };
        let (a, b) = (of("a"), of("b"));
        let mut name = PublishedName { project_id: "b".into(), ..PublishedName::default() };
        assert_eq!(holder(&name, &[a.clone(), b]), Some("b"));
        assert_eq!(holder(&name, std::slice::from_ref(&a)), Some("a"), "b wants it no more");
        name.project_id.clear();
        assert_eq!(holder(&name, &[a]), Some("a"));
        assert_eq!(holder(&name, &[]), None);
    }
}
